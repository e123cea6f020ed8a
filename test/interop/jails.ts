/**
 * Jails for tests: a runtime of the real kind, and a root file system made of an overlay with the host's programs
 * bound into it read-only.
 */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { systemClock } from '#common/clock';
import { type Log, nullLog } from '#common/log';
import { createRuntime, DEFAULT_SHM_BYTES, defaultMounts, defaultSpec } from '../../daemon/runtime/index.ts';
import type { OciCommand } from '../../daemon/runtime/platform.ts';
import type {
  ExitStatus,
  Jail,
  JailMount,
  JailProcess,
  JailSpec,
  ProcessSpec,
  Runtime,
} from '../../daemon/runtime/runtime.ts';

/** What a program that ran to its end has left. */
export interface Outcome {
  stdout: string;
  stderr: string;
  status: ExitStatus;
}

/** What to change of the usual specification. */
export type SpecChanges = Partial<Omit<JailSpec, 'process' | 'mounts'>> & {
  process?: Partial<ProcessSpec>;
  mounts?: JailMount[];
};

/** What a jail must ask for where there are no namespaces. */
export const CONFINED_CHANGES: SpecChanges = { runtime: 'plain', network: { attached: false, ports: [] } };

const PASSWD = 'root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000:Bob:/home/bob:/bin/sh\n';
const GROUP = 'root:x:0:\ntty:x:5:\nstaff:x:50:bob\naudio:x:29:\nbob:x:1000:\n';
const FOLDERS = ['etc', 'proc', 'sys', 'dev', 'tmp', 'root', 'home/bob', 'var/tmp'];
const HOST_FOLDERS = ['/bin', '/lib', '/lib64', '/sbin', '/usr'];

/** A runtime and a root file system, to be closed after use. */
export class Jails {
  readonly runtime: Runtime;
  /** The image: what is put here, before the first jail, is in every root. */
  readonly image: string;
  readonly root: string;
  readonly instance: string;
  readonly #folder: string;

  constructor(options: { log?: Log; instance?: string; oci?: OciCommand } = {}) {
    const unique = `test-${randomBytes(4).toString('hex')}`;
    const { log = nullLog, instance = unique, oci } = options;
    this.instance = instance;
    this.#folder = mkdtempSync(join(tmpdir(), 'drydock-jails-'));
    this.image = join(this.#folder, 'lower');
    this.root = join(this.#folder, 'root');
    for (const folder of FOLDERS) mkdirSync(join(this.image, folder), { recursive: true });
    for (const folder of ['upper', 'work', 'root', 'exec']) mkdirSync(join(this.#folder, folder));
    writeFileSync(join(this.image, 'etc/passwd'), PASSWD);
    writeFileSync(join(this.image, 'etc/group'), GROUP);
    this.runtime = createRuntime({
      instance: this.instance,
      execRoot: join(this.#folder, 'exec'),
      log,
      clock: systemClock,
      ...(oci && { runtimes: { [oci.name]: { path: oci.command } }, defaultRuntime: oci.name }),
    });
  }

  async open(): Promise<void> {
    const layer = (name: string): string => join(this.#folder, name);
    const options = `lowerdir=${this.image},upperdir=${layer('upper')},workdir=${layer('work')}`;
    execFileSync('mount', ['-t', 'overlay', 'overlay', '-o', options, this.root]);
    await this.runtime.open();
  }

  async close(): Promise<void> {
    await this.runtime.close();
    execFileSync('umount', [this.root]);
    rmSync(this.#folder, { recursive: true });
  }

  /** A host folder for volumes, gone after close(). */
  folder(name: string): string {
    const path = join(this.#folder, name);
    mkdirSync(path, { recursive: true });
    return path;
  }

  process(args: string[], changes: Partial<ProcessSpec> = {}): ProcessSpec {
    const { process } = defaultSpec('', this.root);
    return { ...process, args, env: ['PATH=/usr/bin:/bin:/usr/sbin:/sbin'], ...changes };
  }

  spec(args: string[], changes: SpecChanges = {}): JailSpec {
    const spec = defaultSpec(randomBytes(32).toString('hex'), this.root);
    const binds = HOST_FOLDERS.map(
      (path): JailMount => ({ kind: 'bind', source: path, target: path, readOnly: true, options: [] }),
    );
    const privileged = changes.privileged ?? false;
    return {
      ...spec,
      hostname: 'box',
      ...changes,
      namespaces: { ...spec.namespaces, ...changes.namespaces },
      mounts: [
        ...defaultMounts({ privileged, shmBytes: DEFAULT_SHM_BYTES, ipc: 'private' }),
        ...binds,
        ...(changes.mounts ?? []),
      ],
      process: this.process(args, changes.process),
    };
  }

  /** Runs a program in a jail of its own, to its end. */
  async run(args: string[], changes: SpecChanges = {}): Promise<Outcome> {
    const jail = await this.runtime.create(this.spec(args, changes));
    try {
      return await finish(await jail.start());
    } finally {
      await jail.destroy();
    }
  }

  /** Runs a shell script in a jail of its own. */
  sh(script: string, changes: SpecChanges = {}): Promise<Outcome> {
    return this.run(['sh', '-c', script], changes);
  }

  /** Starts a jail whose program waits for ever, hands it over, and destroys it. */
  async withJail<T>(
    changes: SpecChanges,
    use: (jail: Jail, main: JailProcess) => Promise<T>,
    args: string[] = ['sleep', 'infinity'],
  ): Promise<T> {
    const jail = await this.runtime.create(this.spec(args, changes));
    try {
      return await use(jail, await jail.start());
    } finally {
      await jail.destroy();
    }
  }

  /** Runs a further program in a jail, to its end. */
  async exec(jail: Jail, args: string[], changes: Partial<ProcessSpec> = {}): Promise<Outcome> {
    return finish(await jail.exec(this.process(args, changes)));
  }
}

/**
 * An OCI runtime for tests. crun refuses to work where version 2 of control groups has controllers beside version 1;
 * there it gets a mount namespace in which it sees an empty folder instead, whose content ends with it: the one below could
 * be read-only, and would keep what crun makes in it.
 */
export function ociCommand(name: string): OciCommand & { remove(): void } {
  if (name !== 'crun') return { name, command: name, remove() {} };
  const folder = mkdtempSync(join(tmpdir(), 'drydock-crun-'));
  const command = join(folder, 'crun');
  const unified = '/sys/fs/cgroup/unified';
  const inside = `if umount ${unified} 2>/dev/null; then mount -t tmpfs none ${unified}; fi; exec crun "$@"`;
  writeFileSync(command, `#!/bin/sh\nexec unshare --mount sh -c '${inside}' crun "$@"\n`, { mode: 0o755 });
  return { name, command, remove: () => rmSync(folder, { recursive: true }) };
}

/** All of a stream as text. */
export async function text(stream: Readable | undefined): Promise<string> {
  let all = '';
  stream?.setEncoding('utf8');
  for await (const chunk of stream ?? []) all += chunk;
  return all;
}

/** Waits for the end of a process and of its output. */
export async function finish(process: JailProcess): Promise<Outcome> {
  const [stdout, stderr, status] = await Promise.all([
    text(process.stdout),
    text(process.stderr),
    process.exited,
  ]);
  return { stdout, stderr, status };
}

/** Reads until the text so far satisfies `enough`; the stream stays open. */
export function readUntil(stream: Readable, enough: (text: string) => boolean): Promise<string> {
  return new Promise((resolve, reject) => {
    let all = '';
    const onData = (chunk: Buffer | string): void => {
      all += chunk.toString();
      if (!enough(all)) return;
      stop();
      stream.pause();
      resolve(all);
    };
    const onEnd = (): void => {
      stop();
      reject(new Error(`the stream ended after ${JSON.stringify(all)}`));
    };
    const stop = (): void => {
      stream.off('data', onData);
      stream.off('end', onEnd);
    };
    stream.on('data', onData);
    stream.on('end', onEnd);
    stream.resume();
  });
}
