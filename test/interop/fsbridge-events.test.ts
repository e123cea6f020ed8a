import * as fs from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type BridgePair, bridgePair, eventually } from '../support/bridge.ts';
import { Inotify } from '../support/inotify.ts';
import * as posix from '../support/posix.ts';
import { lacking } from '../support/requirements.ts';

const skip = lacking('root', '/dev/fuse');
const modes = [
  { consistency: 'consistent', readOnly: false },
  { consistency: 'cached', readOnly: false },
  { consistency: 'cached', readOnly: true },
] as const;

describe.skipIf(skip).each(modes)('events of host changes, $consistency, ro $readOnly', (mode) => {
  let pair: BridgePair;
  let guest: BridgePair['guest'];
  let host: BridgePair['host'];
  let inotify: Inotify;

  beforeEach(async () => {
    pair = await bridgePair(mode);
    ({ guest, host } = pair);
    fs.writeFileSync(host('file'), 'old content');
    fs.mkdirSync(host('dir'));
    fs.mkdirSync(host('unknown'));
    inotify = new Inotify();
    inotify.watch(guest(''), 'root');
    inotify.watch(guest('dir'), 'dir');
    inotify.watch(guest('file'), 'file');
    await settled();
  });
  afterEach(async () => {
    inotify.close();
    await pair.remove();
    expect(pair.trouble).toEqual([]);
  });

  /** Waits until whatever was on its way has come: a change made last is seen last. */
  async function settled(): Promise<void> {
    fs.mkdirSync(host('marker'));
    expect(await eventually(() => inotify.poll().some(({ what }) => what === 'CREATE,ISDIR'))).toBe(true);
    fs.rmdirSync(host('marker'));
    expect(await eventually(() => inotify.poll().some(({ what }) => what === 'DELETE,ISDIR'))).toBe(true);
    inotify.take();
  }

  /** The events of `change`, without those of the marker that ends them. */
  async function eventsOf(change: () => void): Promise<string[]> {
    change();
    fs.mkdirSync(host('end'));
    expect(await eventually(() => inotify.poll().some(({ where }) => where === 'root/end'))).toBe(true);
    fs.rmdirSync(host('end'));
    const done = (): boolean =>
      inotify.poll().some((e) => e.what === 'DELETE,ISDIR' && e.where === 'root/end');
    expect(await eventually(done)).toBe(true);
    return inotify.take().filter((text) => !text.endsWith('root/end'));
  }

  it('a write is MODIFY, once, for who watches the file or its folder, and the content is there then', async () => {
    expect(fs.readFileSync(guest('file'), 'utf8')).toBe('old content');
    let seen = '';
    const events = eventsOf(() => fs.appendFileSync(host('file'), ', new'));
    await eventually(() => inotify.poll().some(({ what }) => what === 'MODIFY'));
    seen = fs.readFileSync(guest('file'), 'utf8');
    expect(await events).toEqual(['MODIFY root/file', 'MODIFY file']);
    expect(seen).toBe('old content, new');
  });

  it('a new size in place is seen by who has the file open', async () => {
    const fd = fs.openSync(guest('file'), 'r');
    await eventsOf(() => fs.truncateSync(host('file'), 3));
    expect(fs.fstatSync(fd).size).toBe(3);
    await eventsOf(() => fs.writeFileSync(host('file'), 'new'));
    const buffer = Buffer.alloc(10);
    expect(buffer.toString('utf8', 0, fs.readSync(fd, buffer, 0, 10, 0))).toBe('new');
    fs.closeSync(fd);
  });

  it('chmod, chown and utimes are ATTRIB', async () => {
    expect(await eventsOf(() => fs.chmodSync(host('file'), 0o600))).toEqual([
      'ATTRIB root/file',
      'ATTRIB file',
    ]);
    expect(fs.statSync(guest('file')).mode & 0o777).toBe(0o600);
    expect(await eventsOf(() => fs.chownSync(host('dir'), 7, 7))).toEqual([
      'ATTRIB,ISDIR root/dir',
      'ATTRIB,ISDIR dir',
    ]);
    expect(fs.statSync(guest('dir')).uid).toBe(7);
  });

  it('new things are CREATE and can be used at once, also where their absence was known', async () => {
    expect(fs.existsSync(guest('new'))).toBe(false);
    expect(await eventsOf(() => fs.closeSync(fs.openSync(host('new'), 'wx')))).toEqual(['CREATE root/new']);
    expect(fs.statSync(guest('new')).ino).toBe(fs.statSync(host('new')).ino);
    expect(await eventsOf(() => fs.mkdirSync(host('dir', 'sub')))).toEqual(['CREATE,ISDIR dir/sub']);
    expect(await eventsOf(() => fs.symlinkSync('file', host('link')))).toEqual(['CREATE root/link']);
    expect(fs.readlinkSync(guest('link'))).toBe('file');
    expect(await eventsOf(() => posix.mknod(host('pipe'), 0o10600))).toEqual(['CREATE root/pipe']);
    expect(await eventsOf(() => fs.linkSync(host('new'), host('dir', 'hard')))).toContain('CREATE dir/hard');
    expect(fs.statSync(guest('dir', 'hard')).ino).toBe(fs.statSync(host('new')).ino);
  });

  it('removed things are DELETE, known or not, and gone', async () => {
    fs.writeFileSync(host('never-seen'), '');
    await settled();
    expect(await eventsOf(() => fs.unlinkSync(host('never-seen')))).toEqual(['DELETE root/never-seen']);
    expect(await eventsOf(() => fs.rmdirSync(host('unknown')))).toEqual(['DELETE,ISDIR root/unknown']);
    const events = await eventsOf(() => fs.unlinkSync(host('file')));
    expect(events).toContain('DELETE root/file');
    expect(events).toContain('DELETE_SELF file');
    expect(fs.existsSync(guest('file'))).toBe(false);
    expect(fs.readdirSync(guest('')).sort()).toEqual(['dir']);
  });

  it('a rename is MOVED_FROM and MOVED_TO with one cookie', async () => {
    fs.renameSync(host('file'), host('dir', 'moved'));
    expect(await eventually(() => inotify.poll().some(({ what }) => what === 'MOVED_TO'))).toBe(true);
    const moves = inotify.events.filter(({ what }) => what.startsWith('MOVED'));
    expect(moves.map(({ what, where }) => `${what} ${where}`)).toEqual([
      'MOVED_FROM root/file',
      'MOVED_TO dir/moved',
    ]);
    expect(moves[0]!.cookie).toBe(moves[1]!.cookie);
    expect(moves[0]!.cookie).not.toBe(0);
    expect(fs.readFileSync(guest('dir', 'moved'), 'utf8')).toBe('old content');
    expect(fs.existsSync(guest('file'))).toBe(false);
  });

  it('a rename over a file and one of a folder with known contents keep the tree right', async () => {
    fs.writeFileSync(host('dir', 'inner'), 'inner');
    expect(fs.readFileSync(guest('dir', 'inner'), 'utf8')).toBe('inner');
    await eventsOf(() => fs.renameSync(host('dir'), host('moved')));
    expect(fs.readFileSync(guest('moved', 'inner'), 'utf8')).toBe('inner');
    fs.writeFileSync(host('next'), 'next content');
    const events = await eventsOf(() => fs.renameSync(host('next'), host('file')));
    expect(events).toContain('MOVED_TO root/file');
    expect(fs.readFileSync(guest('file'), 'utf8')).toBe('next content');
    expect(fs.statSync(guest('file')).ino).toBe(fs.statSync(host('file')).ino);
  });

  it('moves out of and into the mounted folder are DELETE and CREATE', async () => {
    const outside = `${host('')}-outside`;
    expect(await eventsOf(() => fs.renameSync(host('dir'), outside))).toContain('DELETE,ISDIR root/dir');
    expect(fs.existsSync(guest('dir'))).toBe(false);
    expect(await eventsOf(() => fs.renameSync(outside, host('back')))).toEqual(['CREATE,ISDIR root/back']);
    expect(fs.readdirSync(guest('back'))).toEqual([]);
  });

  if (!mode.readOnly)
    it('the container hears of its own writes once, and of the host again once it closed the file', async () => {
      const fd = fs.openSync(guest('file'), 'a');
      const own = await eventsOf(() => {
        for (let i = 0; i < 3; i++) fs.writeSync(fd, 'x');
      });
      // inotify merges equal events that follow each other.
      expect(own.filter((event) => event.endsWith(' file')).length).toBeLessThanOrEqual(3);
      expect(new Set(own)).toEqual(new Set(['MODIFY root/file', 'MODIFY file']));
      fs.closeSync(fd);
      await settled();
      const hosts = await eventsOf(() => fs.appendFileSync(host('file'), 'y'));
      expect(hosts).toEqual(['MODIFY root/file', 'MODIFY file']);
      expect(fs.readFileSync(guest('file'), 'utf8')).toBe('old contentxxxy');
    });

  if (!mode.readOnly)
    it('the container hears of its own changes once, as on any file system', async () => {
      const own = (): void => {
        fs.writeFileSync(guest('own'), 'x');
        fs.chmodSync(guest('own'), 0o600);
        fs.renameSync(guest('own'), guest('own2'));
        fs.unlinkSync(guest('own2'));
        fs.mkdirSync(guest('made'));
      };
      expect(await eventsOf(own)).toEqual([
        'CREATE root/own',
        'MODIFY root/own',
        'ATTRIB root/own',
        'MOVED_FROM root/own',
        'MOVED_TO root/own2',
        'DELETE root/own2',
        'CREATE,ISDIR root/made',
      ]);
    });

  it('none of 1,500 mixed changes is lost', async () => {
    const names = Array.from({ length: 500 }, (_, i) => `n${i}`);
    const expected = new Map<string, string>();
    for (const name of names) fs.closeSync(fs.openSync(host('dir', name), 'wx'));
    await eventually(() => inotify.poll().filter(({ what }) => what === 'CREATE').length >= 500, 10_000);
    for (const [i, name] of names.entries()) {
      if (i % 3 === 0) fs.appendFileSync(host('dir', name), 'x');
      else if (i % 3 === 1) fs.chmodSync(host('dir', name), 0o600);
      else fs.renameSync(host('dir', name), host('dir', `${name}-moved`));
      expected.set(name, ['MODIFY', 'ATTRIB', 'MOVED_FROM'][i % 3]!);
    }
    const missing = (): string[] => {
      const seen = new Set(inotify.poll().map(({ what, where }) => `${what} ${where}`));
      return [...expected].map(([name, what]) => `${what} dir/${name}`).filter((text) => !seen.has(text));
    };
    await eventually(() => missing().length === 0, 10_000);
    expect(missing()).toEqual([]);
    for (const name of fs.readdirSync(host('dir'))) fs.unlinkSync(host('dir', name));
    const deletes = (): number => inotify.poll().filter(({ what }) => what === 'DELETE').length;
    expect(await eventually(() => deletes() >= 500, 10_000)).toBe(true);
    expect(fs.readdirSync(guest('dir'))).toEqual([]);
  });
});
