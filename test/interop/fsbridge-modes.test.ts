import * as fs from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type BridgePair, bridgePair, eventually, served } from '../support/bridge.ts';
import * as posix from '../support/posix.ts';
import { lacking } from '../support/requirements.ts';

const skip = lacking('root', '/dev/fuse');

/** Requests of a kind that `body` causes. */
async function requests(pair: BridgePair, kind: string, body: () => void): Promise<number> {
  const before = await served(pair.mount, kind);
  body();
  return (await served(pair.mount, kind)) - before;
}

describe.skipIf(skip).each([
  { consistency: 'consistent', passthrough: true },
  { consistency: 'consistent', passthrough: false },
  { consistency: 'cached', passthrough: true },
  { consistency: 'cached', passthrough: false },
  { consistency: 'delegated', passthrough: true },
  { consistency: 'delegated', passthrough: false },
] as const)('guarantees of $consistency, passthrough $passthrough', (mode) => {
  let pair: BridgePair;
  let guest: BridgePair['guest'];
  let host: BridgePair['host'];
  beforeAll(async () => {
    pair = await bridgePair(mode);
    ({ guest, host } = pair);
  });
  afterAll(async () => {
    await pair?.remove();
    expect(pair?.trouble).toEqual([]);
  });
  const strict = mode.consistency === 'consistent';
  const buffered = mode.consistency === 'delegated' && !mode.passthrough;

  it(`a host write is seen ${strict ? 'by the next call' : 'soon'}`, async () => {
    fs.writeFileSync(host('a'), 'one');
    expect(fs.readFileSync(guest('a'), 'utf8')).toBe('one');
    for (let i = 0; i < (strict ? 200 : 5); i++) {
      const text = `content ${i}`;
      fs.writeFileSync(host('a'), text);
      if (strict) expect(fs.readFileSync(guest('a'), 'utf8')).toBe(text);
      else expect(await eventually(() => fs.readFileSync(guest('a'), 'utf8') === text)).toBe(true);
    }
  });

  it(`a host change of names and attributes is seen ${strict ? 'by the next call' : 'soon'}`, async () => {
    const seen = async (condition: () => boolean): Promise<void> => {
      if (strict) expect(condition()).toBe(true);
      else expect(await eventually(condition)).toBe(true);
    };
    expect(fs.existsSync(guest('b'))).toBe(false);
    fs.writeFileSync(host('b'), '12345');
    await seen(() => fs.existsSync(guest('b')));
    fs.chmodSync(host('b'), 0o600);
    await seen(() => (fs.statSync(guest('b')).mode & 0o777) === 0o600);
    fs.truncateSync(host('b'), 2);
    await seen(() => fs.statSync(guest('b')).size === 2);
    fs.renameSync(host('b'), host('c'));
    await seen(() => !fs.existsSync(guest('b')) && fs.existsSync(guest('c')));
    fs.unlinkSync(host('c'));
    await seen(() => !fs.readdirSync(guest('')).includes('c'));
  });

  if (!buffered)
    it('a guest write is on the host at once, before any flush', () => {
      const fd = fs.openSync(guest('w'), 'w');
      fs.writeSync(fd, 'written');
      expect(fs.readFileSync(host('w'), 'utf8')).toBe('written');
      fs.closeSync(fd);
    });

  it('a guest change of names and attributes is on the host at once', () => {
    fs.mkdirSync(guest('d'));
    fs.writeFileSync(guest('d', 'x'), '');
    fs.chmodSync(guest('d', 'x'), 0o640);
    fs.renameSync(guest('d', 'x'), guest('d', 'y'));
    expect(fs.readdirSync(host('d'))).toEqual(['y']);
    expect(fs.statSync(host('d', 'y')).mode & 0o777).toBe(0o640);
    fs.rmSync(guest('d'), { recursive: true });
    expect(fs.existsSync(host('d'))).toBe(false);
  });

  it('what was synced or closed is on the host', () => {
    const fd = fs.openSync(guest('s'), 'w');
    fs.writeSync(fd, 'synced');
    fs.fsyncSync(fd);
    expect(fs.readFileSync(host('s'), 'utf8')).toBe('synced');
    fs.writeSync(fd, ', closed');
    fs.closeSync(fd);
    expect(fs.readFileSync(host('s'), 'utf8')).toBe('synced, closed');
  });

  it(`a known file is ${strict ? 'asked for again' : 'answered from memory'}`, async () => {
    fs.writeFileSync(host('k'), 'known');
    // The file's own event must be over before its silence is measured.
    await eventually(() => fs.existsSync(guest('k')));
    if (!strict) await expect.poll(() => requests(pair, 'statfs', () => fs.statSync(guest('k')))).toBe(0);
    fs.statSync(guest('k'));
    const count = await requests(pair, 'lookup', () => {
      for (let i = 0; i < 50; i++) fs.statSync(guest('k'));
    });
    if (strict) expect(count).toBeGreaterThanOrEqual(50);
    else expect(count).toBeLessThan(5);
  });
});

describe.skipIf(skip).each([{ consistency: 'consistent' }, { consistency: 'cached' }] as const)(
  'names in a folder, $consistency',
  (mode) => {
    let pair: BridgePair;
    let guest: BridgePair['guest'];
    let host: BridgePair['host'];
    beforeAll(async () => {
      pair = await bridgePair(mode);
      ({ guest, host } = pair);
      fs.mkdirSync(host('dir'));
      fs.mkdirSync(host('dir', 'zero'));
    });
    afterAll(async () => {
      await pair?.remove();
      expect(pair?.trouble).toEqual([]);
    });
    const names = (): string[] => fs.readdirSync(guest('dir')).sort();

    it('are answered from memory while nothing changes', async () => {
      const ofTwenty = (): Promise<number> =>
        requests(pair, 'readdir', () => {
          for (let i = 0; i < 20; i++) expect(names()).toEqual(['zero']);
        });
      // Consistent asks again as long as another change might have the same time; else news of the host's own may be on the way.
      await expect.poll(ofTwenty).toBe(0);
    });

    it('are those that the host has, also when it hides that it changed them', async () => {
      const { atime, mtime } = fs.statSync(host('dir'));
      for (let i = 0; i < 100; i++) {
        const made = i % 2 === 0;
        if (made) fs.mkdirSync(host('dir', 'one'));
        else fs.rmdirSync(host('dir', 'one'));
        if (i % 10 < 2) fs.utimesSync(host('dir'), atime, mtime);
        const expected = made ? ['one', 'zero'] : ['zero'];
        if (mode.consistency === 'consistent') expect(names()).toEqual(expected);
        else await expect.poll(names).toEqual(expected);
      }
    });

    it('are those that the guest made, at once', () => {
      for (let i = 0; i < 50; i++) {
        fs.mkdirSync(guest('dir', 'own'));
        expect(names()).toEqual(['own', 'zero']);
        fs.renameSync(guest('dir', 'own'), guest('dir', 'own2'));
        expect(names()).toEqual(['own2', 'zero']);
        fs.rmdirSync(guest('dir', 'own2'));
        expect(names()).toEqual(['zero']);
      }
    });
  },
);

describe.skipIf(skip)('delegated without passthrough', () => {
  it('gathers small writes, and has written all back after unmount', async () => {
    const pair = await bridgePair({ consistency: 'delegated', passthrough: false });
    const fd = posix.open(pair.guest('log'), fs.constants.O_CREAT | fs.constants.O_WRONLY);
    const writes = await requests(pair, 'write', () => {
      for (let i = 0; i < 200; i++) fs.writeSync(fd, 'line of a log\n');
    });
    expect(writes).toBeLessThan(20);
    fs.closeSync(fd);
    await pair.mount.unmount();
    expect(fs.readFileSync(pair.host('log'), 'utf8')).toBe('line of a log\n'.repeat(200));
    await pair.remove();
  });
});

describe.skipIf(skip)('many known files', () => {
  it('cost no descriptors, and no time when nobody asks', async () => {
    const pair = await bridgePair({ consistency: 'cached' });
    try {
      for (let i = 0; i < 300; i++) {
        fs.mkdirSync(pair.host(`d${i}`));
        for (let j = 0; j < 10; j++) fs.closeSync(fs.openSync(pair.host(`d${i}`, `f${j}`), 'w'));
      }
      const list = fs.readdirSync(pair.guest(''), { recursive: true }) as string[];
      for (const name of list) fs.statSync(join(pair.guest(''), name));
      expect(list).toHaveLength(3300);
      expect(fs.readdirSync('/proc/self/fd').length).toBeLessThan(400);
      // What came of making them must be over before their silence is measured.
      const quiet = async (): Promise<number> => {
        const before = await served(pair.mount);
        await eventually(() => false, 50);
        return (await served(pair.mount)) - before;
      };
      await expect.poll(quiet, { timeout: 10_000 }).toBe(0);
      const before = await served(pair.mount);
      // The host is busy in a folder that nobody in the guest knows.
      const elsewhere = `${pair.host('')}-elsewhere`;
      fs.mkdirSync(elsewhere);
      for (let i = 0; i < 500; i++) fs.writeFileSync(join(elsewhere, `${i}`), 'x');
      await eventually(() => false, 100);
      expect((await served(pair.mount)) - before).toBeLessThan(20);
    } finally {
      await pair.remove();
    }
  });
});
