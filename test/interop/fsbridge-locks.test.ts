import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type BridgePair, bridgePair, eventually, served } from '../support/bridge.ts';
import * as posix from '../support/posix.ts';
import { lacking } from '../support/requirements.ts';

const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;
const LOCK_UN = 8;
const READ = 0;
const WRITE = 1;
const FREE = 2;

/** A process that holds, or waits for, a POSIX record lock. */
class Locker {
  readonly process: ChildProcess;
  #said = '';

  constructor(file: string, type: number, start: number, length: number, wait = true) {
    const script = fileURLToPath(new URL('../support/locker.mjs', import.meta.url));
    const args = [script, file, String(type), String(start), String(length), ...(wait ? ['wait'] : [])];
    this.process = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.process.stdout?.on('data', (text) => {
      this.#said += text;
    });
  }

  said(): string[] {
    return this.#said.trim().split('\n');
  }

  async says(word: string): Promise<boolean> {
    return await eventually(() => this.said().includes(word), 10_000);
  }

  async end(): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const exit = once(this.process, 'exit');
    this.process.stdin?.end();
    await exit;
  }
}

describe.skipIf(lacking('root', '/dev/fuse', 'flock'))('locks on a bridge mount', () => {
  let pair: BridgePair;
  /** Another mount of the same folder, as another container has. */
  let other: BridgePair['guest'];
  let file: string;
  let hostFile: string;
  const lockers: Locker[] = [];
  const fds: number[] = [];
  const locker = (...args: ConstructorParameters<typeof Locker>): Locker => {
    const made = new Locker(...args);
    lockers.push(made);
    return made;
  };
  const open = (path: string): number => {
    const fd = fs.openSync(path, 'r+');
    fds.push(fd);
    return fd;
  };
  beforeAll(async () => {
    pair = await bridgePair();
    file = pair.guest('file');
    hostFile = pair.host('file');
    fs.writeFileSync(file, 'x'.repeat(100));
    const second = await bridgePair();
    await second.mount.unmount();
    const { mountFolder } = await import('#fsbridge');
    const mount = await mountFolder({ source: pair.host(''), target: second.guest('') });
    other = second.guest;
    const remove = pair.remove;
    pair.remove = async () => {
      await mount.unmount();
      await second.remove();
      await remove();
    };
  });
  afterEach(async () => {
    for (const fd of fds.splice(0)) fs.closeSync(fd);
    for (const made of lockers.splice(0)) await made.end();
  });
  afterAll(() => pair?.remove());

  it('flock excludes other open files here, on the host and in another mount', () => {
    const fd = open(file);
    expect(posix.outcome(posix.flock(fd, LOCK_EX))).toBe('ok');
    for (const path of [file, hostFile, other('file')]) {
      const contender = open(path);
      expect(posix.outcome(posix.flock(contender, LOCK_SH | LOCK_NB)), path).toBe('EAGAIN');
    }
    expect(posix.outcome(posix.flock(fd, LOCK_SH))).toBe('ok');
    expect(posix.outcome(posix.flock(open(hostFile), LOCK_SH | LOCK_NB))).toBe('ok');
    expect(posix.outcome(posix.flock(fd, LOCK_UN))).toBe('ok');
  });

  it('flock waits for a holder on the host, and for one here', async () => {
    for (const path of [hostFile, file]) {
      const fd = open(path);
      posix.flock(fd, LOCK_EX);
      const before = await served(pair.mount, 'setlkw');
      const waiter = spawn('flock', [file, 'echo', 'got it'], { stdio: ['ignore', 'pipe', 'inherit'] });
      const exit = once(waiter, 'exit');
      let output = '';
      waiter.stdout.on('data', (text) => {
        output += text;
      });
      await expect.poll(async () => await served(pair.mount, 'setlkw')).toBeGreaterThan(before);
      expect(output).toBe('');
      posix.flock(fd, LOCK_UN);
      expect(await exit).toEqual([0, null]);
      expect(output).toBe('got it\n');
    }
  });

  it('closing the open file frees its flock, for the guest at once and soon for the host', async () => {
    for (const path of [file, hostFile]) {
      const fd = fs.openSync(file, 'r+');
      posix.flock(fd, LOCK_EX);
      fs.closeSync(fd);
      const contender = open(path);
      const take = (): string => posix.outcome(posix.flock(contender, LOCK_EX | LOCK_NB));
      // The kernel doesn't let close(2) wait for the server.
      if (path === file) expect(take()).toBe('ok');
      else expect(await eventually(() => take() === 'ok')).toBe(true);
      fs.closeSync(fds.pop()!);
    }
  });

  it('range locks exclude what overlaps, from every side', async () => {
    const holder = locker(file, WRITE, 10, 10);
    expect(await holder.says('locked')).toBe(true);
    for (const path of [file, hostFile, other('file')]) {
      const fd = open(path);
      expect(posix.lockRange(fd, READ, 15, 1), path).toBe('EAGAIN');
      expect(posix.lockRange(fd, WRITE, 0, 10), path).toBe('ok');
      expect(posix.lockRange(fd, FREE, 0, 0), path).toBe('ok');
      expect(posix.lockRange(fd, WRITE, 20, 0), path).toBe('ok');
      expect(posix.lockRange(fd, FREE, 0, 0), path).toBe('ok');
    }
    await holder.end();
    expect(posix.lockRange(open(hostFile), WRITE, 0, 0)).toBe('ok');
  });

  it('closing any descriptor of a file ends the locks of its process, as POSIX wants', async () => {
    const holder = locker(file, WRITE, 0, 0);
    expect(await holder.says('locked')).toBe(true);
    const fd = open(hostFile);
    expect(posix.lockRange(fd, READ, 0, 1)).toBe('EAGAIN');
    holder.process.stdin?.write('x');
    expect(await holder.says('closed')).toBe(true);
    expect(posix.lockRange(fd, READ, 0, 1)).toBe('ok');
  });

  it('closing an open file ends the range locks that belong to it', async () => {
    const fd = fs.openSync(file, 'r+');
    expect(posix.lockRange(fd, WRITE, 0, 0)).toBe('ok');
    expect(posix.lockRange(open(file), READ, 0, 1)).toBe('EAGAIN');
    fs.closeSync(fd);
    const contender = open(file);
    expect(posix.lockRange(contender, READ, 0, 1)).toBe('ok');
    expect(posix.lockRange(contender, FREE, 0, 0)).toBe('ok');
  });

  it('a waiting range lock is granted when the host or the guest frees it', async () => {
    for (const path of [hostFile, file]) {
      const fd = open(path);
      expect(posix.lockRange(fd, WRITE, 0, 0)).toBe('ok');
      const before = await served(pair.mount, 'setlkw');
      const waiter = locker(file, WRITE, 5, 5);
      await expect.poll(async () => await served(pair.mount, 'setlkw')).toBeGreaterThan(before);
      expect(waiter.said()).toEqual(['waiting']);
      expect(posix.lockRange(fd, FREE, 0, 0)).toBe('ok');
      expect(await waiter.says('locked')).toBe(true);
      await waiter.end();
    }
  });

  it('a process that is killed while waiting gets nothing and blocks nobody', async () => {
    const fd = open(hostFile);
    posix.lockRange(fd, WRITE, 0, 0);
    const before = await served(pair.mount, 'setlkw');
    const waiter = locker(file, WRITE, 0, 0);
    await expect.poll(async () => await served(pair.mount, 'setlkw')).toBeGreaterThan(before);
    const exit = once(waiter.process, 'exit');
    waiter.process.kill('SIGKILL');
    expect(await exit).toEqual([null, 'SIGKILL']);
    posix.lockRange(fd, FREE, 0, 0);
    const contender = open(file);
    expect(posix.lockRange(contender, WRITE, 0, 0)).toBe('ok');
    expect(posix.lockRange(contender, FREE, 0, 0)).toBe('ok');
  });

  it('tells which process is in the way', async () => {
    const holder = locker(file, WRITE, 10, 10);
    expect(await holder.says('locked')).toBe(true);
    expect(posix.testRange(open(file), WRITE, 0, 0)).toEqual({
      type: WRITE,
      start: 10,
      length: 10,
      pid: holder.process.pid,
    });
  });
});
