import { describe, expect, it } from 'vitest';
import type { Action } from '../../fsbridge/notify/actions.ts';
import { type HostEvent, parseEvents, withoutThread } from '../../fsbridge/notify/events.ts';
import { Exchange } from '../../fsbridge/notify/exchange.ts';
import { Notifier, type Watch } from '../../fsbridge/notify/notifier.ts';
import { encode, FakeKernel } from './kernel.ts';

const ROOT = 1;
const ENOENT = 2;
const EPERM = 1;
const WATCHER = 4242;
const [MODIFY, ATTRIB, CREATE, DELETE, OVERFLOW] = [0x2, 0x4, 0x100, 0x200, 0x4000];
const RENAME = 0x10000000;
const ONDIR = 0x40000000;
const S_IFREG = 0o100000;
const S_IFDIR = 0o040000;

/** A kernel whose session watches folders; keys are their names, the root's is `root`. */
class Watched {
  readonly kernel = new FakeKernel({ consistency: 'cached' });
  readonly keys: string[] = [];
  readonly removed: string[] = [];
  readonly notifier: Notifier;
  /** Whether requests come from the watcher's thread. */
  watcher = false;

  constructor() {
    const watch: Watch = {
      add: (_dir, name) => {
        const key = name === '' ? 'root' : name;
        this.keys.push(key);
        return key;
      },
      remove: (_dir, name) => void this.removed.push(name),
      ignoreWrites: () => true,
      heedWrites: () => {},
    };
    this.kernel.init();
    const { server } = this.kernel.session;
    this.notifier = new Notifier(
      server,
      watch,
      () => (this.watcher ? WATCHER : 0),
      () => {},
    );
    server.watched(this.notifier);
  }

  plan(...events: Partial<HostEvent>[]): Action[] {
    const whole = events.map((event) => ({
      mask: 0,
      tid: 7,
      dir: 'root',
      name: '',
      toDir: undefined,
      toName: '',
      ...event,
    }));
    return this.notifier.plan(whole);
  }

  /** What the watcher's requests are answered. */
  asWatcher<T>(body: (kernel: FakeKernel) => T): T {
    this.watcher = true;
    try {
      return body(this.kernel);
    } finally {
      this.watcher = false;
    }
  }

  hostFile(name: string, mode = 0o644): void {
    const { host } = this.kernel;
    host.close(host.create(host.root, name, 2, mode));
  }
}

describe('which folders are watched', () => {
  it('those that the kernel knows, until it forgets them', () => {
    const watched = new Watched();
    const { kernel } = watched;
    const { node } = kernel.mkdir(ROOT, 'dir');
    kernel.host.mkdir(kernel.host.root, 'unknown', 0o755);
    kernel.create(ROOT, 'file');
    expect(watched.keys).toEqual(['root', 'dir']);
    kernel.lookup(ROOT, 'dir');
    expect(watched.keys).toHaveLength(2);
    kernel.forget(node, 2);
    expect(watched.notifier.size).toBe(1);
    expect(watched.removed).toHaveLength(1);
  });
});

describe('what is done about a change', () => {
  it('a write drops the data first, then is repeated with the size it has', () => {
    const watched = new Watched();
    watched.hostFile('a');
    const { node } = watched.kernel.lookup(ROOT, 'a');
    expect(watched.plan({ mask: MODIFY, name: 'a' }, { mask: MODIFY, name: 'a' })).toEqual([
      { do: 'dropInode', node: Number(node) },
      { do: 'modify', path: 'a', size: 0 },
    ]);
    // SETATTR of the watcher changes nothing and tells the truth.
    const answer = watched.asWatcher((kernel) => kernel.ok(4, node, 8, 0, 0n, 999n, new Uint8Array(64)));
    expect(answer.readBigUInt64LE(24)).toBe(0n);
  });

  it('a new file is made once more, and only the watcher sees it missing until then', () => {
    const watched = new Watched();
    watched.hostFile('new', 0o600);
    expect(watched.plan({ mask: CREATE, name: 'new' })).toEqual([
      { do: 'dropEntry', parent: 1, name: 'new' },
      { do: 'dropInode', node: 1 },
      { do: 'create', path: 'new', type: S_IFREG },
    ]);
    expect(watched.asWatcher((kernel) => kernel.error(1, ROOT, 'new'))).toBe(ENOENT);
    const made = watched.asWatcher((kernel) => kernel.entry(kernel.ok(8, ROOT, 0o100600, 0, 0, 0, 'new')));
    expect(made.mode).toBe(0o100600);
    expect(watched.kernel.lookup(ROOT, 'new').node).toBe(made.node);
    // Twice is once too often: the watcher may only repeat what was.
    expect(watched.asWatcher((kernel) => kernel.error(8, ROOT, 0o100600, 0, 0, 0, 'new'))).toBe(EPERM);
    expect(watched.asWatcher((kernel) => kernel.error(8, ROOT, 0o100600, 0, 0, 0, 'other'))).toBe(EPERM);
  });

  it('what is gone can be removed once more, known or not', () => {
    const watched = new Watched();
    const { host } = watched.kernel;
    watched.hostFile('known');
    const { node } = watched.kernel.lookup(ROOT, 'known');
    host.unlink(host.root, 'known');
    const actions = watched.plan({ mask: DELETE, name: 'known' }, { mask: DELETE | ONDIR, name: 'dir' });
    expect(actions.filter((action) => action.do === 'delete')).toEqual([
      { do: 'delete', path: 'known', dir: false },
      { do: 'delete', path: 'dir', dir: true },
    ]);
    watched.asWatcher((kernel) => {
      expect(kernel.lookup(ROOT, 'known').node).toBe(node);
      expect(kernel.error(10, ROOT, 'known')).toBe(0);
      expect(kernel.lookup(ROOT, 'dir').mode & 0o170000).toBe(S_IFDIR);
      expect(kernel.error(11, ROOT, 'dir')).toBe(0);
      expect(kernel.error(10, ROOT, 'known')).toBe(EPERM);
    });
    expect(watched.kernel.error(1, ROOT, 'known')).toBe(0);
    expect(watched.kernel.ok(1, ROOT, 'known').readBigUInt64LE(0)).toBe(0n);
  });

  it('a rename moves the node, within and between folders', () => {
    const watched = new Watched();
    const { kernel } = watched;
    const dir = kernel.mkdir(ROOT, 'dir').node;
    watched.hostFile('a');
    const { node } = kernel.lookup(ROOT, 'a');
    const dirFd = kernel.host.openPath(kernel.host.root, 'dir');
    kernel.host.rename(kernel.host.root, 'a', dirFd, 'b', 0);
    kernel.host.close(dirFd);
    const actions = watched.plan({ mask: RENAME, name: 'a', toDir: 'dir', toName: 'b' });
    expect(actions).toContainEqual({ do: 'move', from: 'a', to: 'dir/b' });
    watched.asWatcher(() => {
      expect(kernel.lookup(ROOT, 'a').node).toBe(node);
      expect(kernel.error(1, dir, 'b')).toBe(ENOENT);
      expect(kernel.error(12, ROOT, dir, 'a', 'b')).toBe(0);
    });
    expect(kernel.lookup(dir, 'b').node).toBe(node);
  });

  it('what came and went between two looks is no news, but may have been listed', () => {
    const watched = new Watched();
    const forgetNames = [{ do: 'dropInode', node: ROOT }];
    expect(watched.plan({ mask: CREATE | DELETE, name: 'x' })).toEqual(forgetNames);
    expect(
      watched.plan({ mask: CREATE, name: 'y' }, { mask: MODIFY, name: 'y' }, { mask: DELETE, name: 'y' }),
    ).toEqual(forgetNames);
  });

  it('events of folders that nobody knows are nothing', () => {
    expect(new Watched().plan({ mask: CREATE, dir: 'elsewhere', name: 'x' })).toEqual([]);
  });

  it('lost events make everything doubtful, and watchers of folders look again', () => {
    const watched = new Watched();
    watched.kernel.mkdir(ROOT, 'dir');
    const actions = watched.plan({ mask: OVERFLOW });
    expect(actions[0]).toEqual({ do: 'dropAll' });
    expect(actions.filter((action) => action.do === 'attrib').map((action) => action.path)).toEqual([
      '',
      'dir',
    ]);
  });

  it('other threads are served as ever, the watcher may not write', () => {
    const watched = new Watched();
    expect(watched.kernel.create(ROOT, 'a').entry.node).toBe(2n);
    watched.asWatcher((kernel) => {
      expect(kernel.error(35, ROOT, 2, 0o644, 0, 0, 'b')).toBe(EPERM);
      expect(kernel.error(14, 2, 2, 0)).toBe(EPERM);
    });
    expect(watched.plan({ mask: ATTRIB, name: 'a' }).at(-1)).toEqual({
      do: 'attrib',
      path: 'a',
      mode: 0o644,
    });
  });
});

describe('events as bytes', () => {
  /** struct fanotify_event_info_fid of a folder and a name, padded to 4 bytes. */
  const record = (type: number, name: string): Buffer => {
    const text = Buffer.from(`${name}\0`);
    const size = (4 + 8 + 8 + 8 + text.length + 3) & ~3;
    const body = encode([type | (size << 16), 0x1111111122222222n, 8, 1, 0x3333333344444444n, text]);
    return Buffer.concat([body, Buffer.alloc(size - body.length)]);
  };
  const event = (mask: number, tid: number, ...records: Buffer[]): Buffer => {
    const size = 24 + records.reduce((sum, { length }) => sum + length, 0);
    return Buffer.concat([encode([size, 3 | (24 << 16), BigInt(mask), 0xffffffff, tid]), ...records]);
  };

  it('are understood: a name, both names of a rename, none', () => {
    const bytes = Buffer.concat([
      event(CREATE, 5, record(2, 'made')),
      event(RENAME, 6, record(10, 'old'), record(12, 'new')),
      event(OVERFLOW, 0),
    ]);
    const events = parseEvents(bytes);
    expect(events.map(({ mask, tid, name, toName }) => [mask, tid, name, toName])).toEqual([
      [CREATE, 5, 'made', ''],
      [RENAME, 6, 'old', 'new'],
      [OVERFLOW, 0, '', ''],
    ]);
    expect(events[0]!.dir).toHaveLength(8 + 4 + 8);
    expect(events[1]!.toDir).toBe(events[0]!.dir);
    expect(events[0]!.toDir).toBeUndefined();
  });

  it('of one thread can be left out', () => {
    const other = event(MODIFY, 5, record(2, 'x'));
    const bytes = Buffer.concat([
      event(CREATE, 9, record(2, 'own')),
      other,
      event(DELETE, 9, record(2, 'own')),
    ]);
    expect(withoutThread(bytes, 9)).toBe(other.length);
    expect(bytes.subarray(0, other.length).equals(other)).toBe(true);
  });

  it('that are cut or lie about their length end the list', () => {
    const bytes = event(CREATE, 5, record(2, 'made'));
    for (let length = 0; length < bytes.length; length++)
      expect(parseEvents(bytes.subarray(0, length))).toEqual([]);
    bytes.writeUInt32LE(8, 0);
    expect(parseEvents(bytes)).toEqual([]);
  });
});

describe('the exchange between the threads', () => {
  it('gives events once and takes actions, names with any byte among them', () => {
    const watcher = new Exchange();
    const server = new Exchange(watcher.shared);
    expect(server.takeEvents()).toBeUndefined();
    watcher.putEvents(Buffer.from('events'));
    expect(watcher.takeActions()).toEqual([]);
    expect(server.takeEvents()?.toString()).toBe('events');
    expect(server.takeEvents()).toBeUndefined();
    const actions: Action[] = [{ do: 'dropEntry', parent: 1, name: 'n\xff\x80"\\\n' }];
    server.putActions(actions);
    expect(watcher.takeActions()).toEqual(actions);
  });
});
