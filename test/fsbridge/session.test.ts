import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ManualClock } from '#common/clock';
import { READ, SYNC } from '../../fsbridge/aside/jobs.ts';
import { MemoryFs } from '../../fsbridge/backing/memory-fs.ts';
import { OPEN_DIRS_MAX } from '../../fsbridge/node/dirs.ts';
import { inputs } from '../support/fuzz/inputs.ts';
import { encode, FakeKernel } from './kernel.ts';

const EPERM = 1;
const ENOENT = 2;
const EINTR = 4;
const EIO = 5;
const EBADF = 9;
const EAGAIN = 11;
const EEXIST = 17;
const EINVAL = 22;
const EFBIG = 27;
const EROFS = 30;
const ENOSYS = 38;
const ESTALE = 116;
const ROOT = 1;
const O_EXCL = 0o200;

function started(...args: ConstructorParameters<typeof FakeKernel>): FakeKernel {
  const kernel = new FakeKernel(...args);
  kernel.init();
  return kernel;
}

describe('INIT', () => {
  it('agrees on the lower version and only on flags that were offered', () => {
    const kernel = new FakeKernel();
    const reply = kernel.init((1 << 0) | (1 << 5), 31);
    expect(reply).toHaveLength(64);
    expect(reply.readUInt32LE(0)).toBe(7);
    expect(reply.readUInt32LE(4)).toBe(31);
    expect(reply.readUInt32LE(12)).toBe((1 << 0) | (1 << 5));
    expect(reply.readUInt32LE(20)).toBe(1 << 20);
    // No MAX_PAGES, no count of pages.
    expect(reply.readUInt16LE(28)).toBe(0);
  });

  it('asks for no cached attributes in consistent mode and for writeback only in delegated', () => {
    const flags = (mode: 'consistent' | 'cached' | 'delegated'): number =>
      new FakeKernel({ consistency: mode }).init().readUInt32LE(12);
    const [READDIRPLUS, WRITEBACK] = [1 << 13, 1 << 16];
    expect(flags('consistent') & (READDIRPLUS | WRITEBACK)).toBe(0);
    expect(flags('cached') & (READDIRPLUS | WRITEBACK)).toBe(READDIRPLUS);
    expect(flags('delegated') & (READDIRPLUS | WRITEBACK)).toBe(READDIRPLUS | WRITEBACK);
  });

  it('refuses other requests before and a second one after', () => {
    const kernel = new FakeKernel();
    expect(kernel.error(3, ROOT, 0, 0, 0n)).toBe(EIO);
    kernel.init();
    expect(kernel.error(3, ROOT, 0, 0, 0n)).toBe(0);
    expect(kernel.error(26, 0, 7, 45, 0, 0, 0, new Uint8Array(44))).toBe(EIO);
  });

  it('refuses another major version', () => {
    expect(new FakeKernel().error(26, 0, 8, 0, 0, 0)).toBe(EIO);
  });
});

describe('bytes of replies', () => {
  it('an entry has the fields of struct fuse_entry_out at their places', () => {
    const kernel = started({ consistency: 'cached' });
    kernel.uid = 1000;
    kernel.gid = 1001;
    kernel.clock.advance(1500);
    const { fh, entry } = kernel.create(ROOT, 'file', 2, 0o640);
    kernel.write(entry.node, fh, 0, 'hello');
    const seconds = BigInt(Math.floor(kernel.clock.wallMs() / 1000));
    expect(kernel.ok(1, ROOT, 'file')).toEqual(
      encode([
        entry.node, // nodeid
        0n, // generation
        1n, // entry_valid
        1n, // attr_valid
        0, // entry_valid_nsec
        0, // attr_valid_nsec
        2n, // ino
        5n, // size
        1n, // blocks
        seconds, // atime
        seconds, // mtime
        seconds, // ctime
        500_000_000, // atimensec
        500_000_000, // mtimensec
        500_000_000, // ctimensec
        0o100640, // mode
        1, // nlink
        1000, // uid
        1001, // gid
        0, // rdev
        4096, // blksize
        0, // flags
      ]),
    );
  });

  it('a device number is put together as the kernel wants it', () => {
    const kernel = started({ devices: true });
    // Major 0xabc, minor 0x12345: new_encode_dev().
    const device = 0x45 | (0xabc << 8) | (0x12300 << 12);
    const body = kernel.ok(8, ROOT, 0o20600, device, 0, 0, 'device');
    expect(body.readUInt32LE(116)).toBe(device >>> 0);
    expect(started().error(8, ROOT, 0o20600, device, 0, 0, 'device')).toBe(EPERM);
  });
});

describe('references', () => {
  it('count every entry and end with FORGET', () => {
    const kernel = started();
    const { nodes } = kernel.session.server;
    const { entry, fh } = kernel.create(ROOT, 'a');
    kernel.release(entry.node, fh);
    expect(kernel.lookup(ROOT, 'a').node).toBe(entry.node);
    expect(nodes.size).toBe(2);
    kernel.forget(entry.node, 1);
    expect(nodes.size).toBe(2);
    kernel.forget(entry.node, 1);
    expect(nodes.size).toBe(1);
    expect(kernel.error(3, entry.node, 0, 0, 0n)).toBe(ESTALE);
  });

  it('a parent lives as long as a child, whichever is forgotten first', () => {
    const kernel = started();
    const { nodes } = kernel.session.server;
    const top = kernel.mkdir(ROOT, 'top');
    const middle = kernel.mkdir(top.node, 'middle');
    const leaf = kernel.mkdir(middle.node, 'leaf');
    const batch = [top, middle].flatMap(({ node }) => [node, 1n]);
    expect(kernel.send(42, 0, 2, 0, ...batch)).toBeUndefined();
    expect(nodes.size).toBe(4);
    expect(kernel.error(3, leaf.node, 0, 0, 0n)).toBe(0);
    kernel.forget(leaf.node, 1);
    expect(nodes.size).toBe(1);
    expect(kernel.session.server.dirs.size).toBe(0);
    expect(kernel.host.openCount).toBe(0);
  });

  it('a node that was forgotten while open ends with RELEASE', () => {
    const kernel = started();
    const { entry, fh } = kernel.create(ROOT, 'a');
    kernel.forget(entry.node, 1);
    expect(kernel.session.server.nodes.size).toBe(2);
    kernel.release(entry.node, fh);
    expect(kernel.session.server.nodes.size).toBe(1);
    expect(kernel.host.openCount).toBe(0);
  });

  it('a batch that claims more than it holds is read to its end', () => {
    const kernel = started();
    const { entry, fh } = kernel.create(ROOT, 'a');
    kernel.release(entry.node, fh);
    kernel.send(42, 0, 0xffffffff, 0, entry.node, 1n);
    expect(kernel.session.server.nodes.size).toBe(1);
  });

  it('what the kernel did not take is taken back', () => {
    const kernel = started();
    kernel.create(ROOT, 'a');
    kernel.session.undeliverable();
    expect(kernel.session.server.nodes.size).toBe(1);
    expect(kernel.session.server.handles.size).toBe(0);
    expect(kernel.host.openCount).toBe(0);
  });

  it('descriptors of folders stay below their limit, and all folders work', () => {
    const kernel = started();
    const dirs = Array.from({ length: OPEN_DIRS_MAX + 50 }, (_, i) => kernel.mkdir(ROOT, `d${i}`));
    for (const [i, dir] of dirs.entries()) kernel.mkdir(dir.node, `below${i}`);
    expect(kernel.host.openCount).toBeLessThanOrEqual(OPEN_DIRS_MAX);
    expect(kernel.lookup(dirs[0]!.node, 'below0').mode).toBe(0o40755);
    // A chain deeper than the limit is opened again from the top.
    let at = kernel.mkdir(ROOT, 'deep').node;
    const chain = [at];
    for (let i = 0; i < OPEN_DIRS_MAX + 20; i++) {
      at = kernel.mkdir(at, 'd').node;
      chain.push(at);
    }
    for (const dir of dirs) kernel.lookup(dir.node, `below${dirs.indexOf(dir)}`);
    expect(kernel.error(12, at, chain[3]!, 'missing', 'x')).toBe(ENOENT);
    kernel.mkdir(at, 'bottom');
    expect(kernel.error(12, at, chain[3]!, 'bottom', 'up')).toBe(0);
    expect(kernel.lookup(chain[3]!, 'up').mode).toBe(0o40755);
  });
});

describe('names', () => {
  it('that could lead elsewhere never reach the host', () => {
    const kernel = started();
    for (const name of ['', '.', '..', 'a/b', '/', '../etc', 'x/']) {
      expect(kernel.error(1, ROOT, name), name).toBe(EINVAL);
      expect(kernel.error(35, ROOT, 2, 0o644, 0, 0, name), name).toBe(EINVAL);
      expect(kernel.error(9, ROOT, 0o755, 0, name), name).toBe(EINVAL);
      expect(kernel.error(10, ROOT, name), name).toBe(EINVAL);
      expect(kernel.error(12, ROOT, 1n, 'a', name), name).toBe(EINVAL);
      expect(kernel.error(6, ROOT, name, 'target'), name).toBe(EINVAL);
    }
    expect(kernel.host.openCount).toBe(0);
  });

  it('without an end are refused', () => {
    const kernel = started();
    expect(kernel.error(1, ROOT, Buffer.from('abc'))).toBe(EINVAL);
    expect(kernel.error(12, ROOT, 1n, Buffer.from('abcd'))).toBe(EINVAL);
    expect(kernel.error(12, ROOT, 1n, 'abc', Buffer.from('d'))).toBe(EINVAL);
  });

  it('stay with their files through renames, exchanges and links', () => {
    const kernel = started();
    const a = kernel.create(ROOT, 'a').entry.node;
    const b = kernel.create(ROOT, 'b').entry.node;
    const dir = kernel.mkdir(ROOT, 'dir').node;
    const exchange = 2;
    expect(kernel.error(45, ROOT, dir, 0, 0, 'a', 'a2')).toBe(0);
    expect(kernel.lookup(dir, 'a2').node).toBe(a);
    expect(kernel.error(45, ROOT, dir, exchange, 0, 'b', 'a2')).toBe(0);
    expect(kernel.lookup(dir, 'a2').node).toBe(b);
    expect(kernel.lookup(ROOT, 'b').node).toBe(a);
    expect(kernel.entry(kernel.ok(13, ROOT, a, 'hard'))).toMatchObject({ node: a, nlink: 2 });
    expect(kernel.error(10, ROOT, 'b')).toBe(0);
    expect(kernel.lookup(ROOT, 'hard')).toMatchObject({ node: a, nlink: 1 });
    expect(kernel.error(45, ROOT, 1n, 8, 0, 'hard', 'x')).toBe(EINVAL);
  });

  it('whose file the host replaced lead to a new node', () => {
    const kernel = started();
    const old = kernel.create(ROOT, 'a').entry.node;
    kernel.host.unlink(kernel.host.root, 'a');
    kernel.host.close(kernel.host.create(kernel.host.root, 'a', 2, 0o600));
    expect(kernel.lookup(ROOT, 'a').node).not.toBe(old);
    // The old one is open, and known by that.
    expect(kernel.ok(3, old, 0, 0, 0n).readUInt32LE(80)).toBe(0);
  });
});

describe('open files', () => {
  it('are read and written at offsets, and outlive their name', () => {
    const kernel = started();
    const { entry, fh } = kernel.create(ROOT, 'a');
    expect(kernel.write(entry.node, fh, 0, 'hello world')).toBe(11);
    expect(kernel.read(entry.node, fh, 6, 100)).toBe('world');
    expect(kernel.error(10, ROOT, 'a')).toBe(0);
    expect(kernel.read(entry.node, fh, 0, 5)).toBe('hello');
    const again = kernel.open(entry.node, 0);
    expect(kernel.read(entry.node, again, 0, 5)).toBe('hello');
    kernel.release(entry.node, fh);
    kernel.release(entry.node, again);
    expect(kernel.error(15, entry.node, fh, 0n, 1, 0, 0n, 0, 0)).toBe(EBADF);
  });

  it('end where they end, also for offsets that no file has', () => {
    const kernel = started();
    const { entry, fh } = kernel.create(ROOT, 'a');
    kernel.write(entry.node, fh, 0, 'hello');
    for (const offset of [5, 4096, 2 ** 32, 2 ** 62]) {
      expect(kernel.ok(15, entry.node, fh, BigInt(offset), 9, 0, 0n, 0, 0)).toHaveLength(0);
      if (offset > 4096)
        expect(kernel.error(16, entry.node, fh, BigInt(offset), 1, 0, 0n, 0, 0, 'x')).toBe(EFBIG);
    }
    expect(kernel.read(entry.node, fh, 0, 9)).toBe('hello');
    expect(kernel.bugs).toEqual([]);
  });

  it('leave what waits for a disk to others, and wait themselves when those have too much to do', () => {
    const left: number[][] = [];
    let room = true;
    let inMemory = 3;
    class DiskFs extends MemoryFs {
      override readNow(...args: Parameters<MemoryFs['readNow']>): number {
        const [fd, into, at, size, position] = args;
        return position >= inMemory ? -EAGAIN : this.read(fd, into, at, Math.min(size, inMemory), position);
      }
    }
    const aside = {
      put: (...job: number[]): boolean => {
        if (room) left.push(job);
        return room;
      },
    };
    const kernel = started({}, new DiskFs(new ManualClock()), aside);
    const { entry, fh } = kernel.create(ROOT, 'a');
    kernel.write(entry.node, fh, 0, 'hello');
    expect(kernel.read(entry.node, fh, 0, 3)).toBe('hel');
    expect(kernel.send(15, entry.node, fh, 0n, 5, 0, 0n, 0, 0)).toBeUndefined();
    expect(kernel.send(20, entry.node, fh, 1, 0)).toBeUndefined();
    const fd = left[0]![2]!;
    expect(left).toEqual([
      [READ, Number(kernel.lastUnique) - 2, fd, 0, 5],
      [SYNC, Number(kernel.lastUnique), fd, 1],
    ]);
    room = false;
    expect(kernel.read(entry.node, fh, 0, 5)).toBe('hello');
    expect(kernel.error(20, entry.node, fh, 0, 0)).toBe(0);
    // The end of a file in memory is no reason to wait.
    inMemory = 100;
    room = true;
    expect(kernel.read(entry.node, fh, 0, 100)).toBe('hello');
  });

  it('a write that claims more data than it brings is refused', () => {
    const kernel = started();
    const { entry, fh } = kernel.create(ROOT, 'a');
    expect(kernel.error(16, entry.node, fh, 0n, 1000, 0, 0n, 0, 0, Buffer.from('x'))).toBe(EINVAL);
  });

  it('CREATE without O_EXCL opens what the host made meanwhile', () => {
    const kernel = started();
    kernel.host.close(kernel.host.create(kernel.host.root, 'a', 2, 0o600));
    kernel.uid = 1000;
    expect(kernel.create(ROOT, 'a').entry).toMatchObject({ uid: 0, mode: 0o100600 });
    expect(kernel.error(35, ROOT, 2 | O_EXCL, 0o644, 0, 0, 'a')).toBe(EEXIST);
  });

  it('nothing changes in a read-only session', () => {
    const host = started().host;
    host.close(host.create(host.root, 'a', 2, 0o600));
    const kernel = started({ readOnly: true }, host);
    const { node } = kernel.lookup(ROOT, 'a');
    expect(kernel.error(14, node, 2, 0)).toBe(EROFS);
    expect(kernel.error(14, node, 0, 0)).toBe(0);
    expect(kernel.error(35, ROOT, 2, 0o644, 0, 0, 'b')).toBe(EROFS);
    expect(kernel.error(4, node, 1, 0, new Uint8Array(80))).toBe(EROFS);
    expect(kernel.error(10, ROOT, 'a')).toBe(EROFS);
    expect(kernel.error(21, node, 1, 0, 'user.x', Buffer.from('y'))).toBe(EROFS);
  });
});

describe('listing', () => {
  const names = Array.from({ length: 100 }, (_, i) => `name-${i}`);
  function filled(...args: ConstructorParameters<typeof FakeKernel>): { kernel: FakeKernel; fh: bigint } {
    const kernel = started(...args);
    for (const name of names) kernel.host.mkdir(kernel.host.root, name, 0o755);
    return { kernel, fh: kernel.ok(27, ROOT, 0, 0).readBigUInt64LE(0) };
  }

  it('goes on from any cookie, in replies of any size', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 48, max: 700 }), { minLength: 1 }), (sizes) => {
        const { kernel, fh } = filled();
        const seen: string[] = [];
        let cookie = 0n;
        for (let i = 0; ; i++) {
          const part = kernel.list(ROOT, fh, cookie, sizes[i % sizes.length]!);
          if (part.length === 0) break;
          seen.push(...part.map(({ name }) => name));
          cookie = part.at(-1)!.cookie;
        }
        expect(seen).toEqual(['.', '..', ...names]);
        const all = kernel.list(ROOT, fh, 0n, 65536);
        expect(all.map(({ name }) => name)).toEqual(seen);
        expect(kernel.list(ROOT, fh, all[41]!.cookie, 65536)).toEqual(all.slice(42));
      }),
      { numRuns: inputs(30) },
    );
  });

  it('with PLUS gives a reference with each name but . and ..', () => {
    const { kernel, fh } = filled({ consistency: 'cached' });
    const list = kernel.list(ROOT, fh, 0n, 65536, true);
    expect(list.map(({ name }) => name)).toEqual(['.', '..', ...names]);
    for (const { name, entry } of list) expect(entry!.node === 0n, name).toBe(name.startsWith('.'));
    const nodes = list.slice(2).map(({ entry }) => entry!.node);
    expect(new Set(nodes).size).toBe(100);
    expect(kernel.session.server.nodes.size).toBe(101);
    for (const node of nodes) kernel.forget(node, 1);
    expect(kernel.session.server.nodes.size).toBe(1);
  });

  it('with PLUS leaves out what the kernel knows already, until it may have changed', () => {
    const { kernel, fh } = filled({ consistency: 'cached' });
    const told = (): number =>
      kernel.list(ROOT, fh, 0n, 65536, true).filter(({ entry }) => entry!.node !== 0n).length;
    expect(told()).toBe(100);
    expect(told()).toBe(0);
    kernel.ok(12, ROOT, BigInt(ROOT), 'name-0', 'name-0-moved');
    expect(told()).toBe(1);
    kernel.clock.advance(2000);
    expect(told()).toBe(100);
  });

  it('may be kept by the kernel of a folder that had time to change visibly and did not', () => {
    const { kernel } = filled();
    const kept = (): number => kernel.ok(27, ROOT, 0, 0).readUInt32LE(8);
    const [KEEP_CACHE, CACHE_DIR] = [2, 8];
    kernel.clock.advance(5);
    expect(kept()).toBe(0);
    kernel.clock.advance(1001);
    kernel.host.mkdir(kernel.host.root, 'late', 0o755);
    kernel.clock.advance(10);
    expect(kept()).toBe(0);
    kernel.clock.advance(50);
    expect(kept()).toBe(CACHE_DIR);
    expect(kept()).toBe(CACHE_DIR | KEEP_CACHE);
  });

  it('of a handle that is none is refused', () => {
    const { kernel, fh } = filled();
    const { fh: file } = kernel.create(ROOT, 'file');
    expect(kernel.error(28, ROOT, file, 0n, 4096, 0, 0n, 0, 0)).toBe(EBADF);
    expect(kernel.error(28, ROOT, fh + 100n, 0n, 4096, 0, 0n, 0, 0)).toBe(EBADF);
  });
});

describe('locks', () => {
  const lock = (fh: bigint, owner: bigint, type: number, flags = 0) =>
    [fh, owner, 0n, 0x7fffffffffffffffn, type, 77, flags, 0] as const;
  const [READ, WRITE, FREE] = [0, 1, 2];
  const FLOCK = 1;

  it('of two owners exclude each other, and one may wait for the other', () => {
    const kernel = started();
    const { entry, fh } = kernel.create(ROOT, 'a');
    expect(kernel.error(32, entry.node, ...lock(fh, 1n, WRITE))).toBe(0);
    expect(kernel.error(32, entry.node, ...lock(fh, 2n, READ))).toBe(EAGAIN);
    const held = kernel.ok(31, entry.node, ...lock(fh, 2n, READ));
    expect(held).toEqual(encode([0n, 0x7fffffffffffffffn, WRITE, 77]));
    expect(kernel.send(33, entry.node, ...lock(fh, 2n, READ))).toBeUndefined();
    const waiting = kernel.lastUnique;
    expect(kernel.poll()).toEqual([]);
    expect(kernel.error(32, entry.node, ...lock(fh, 1n, FREE))).toBe(0);
    expect(kernel.poll()).toEqual([{ unique: waiting, error: 0, body: Buffer.alloc(0) }]);
    expect(kernel.session.pollAt()).toBe(Number.POSITIVE_INFINITY);
  });

  it('of an owner that closes the file are freed', () => {
    const kernel = started();
    const { entry, fh } = kernel.create(ROOT, 'a');
    kernel.ok(32, entry.node, ...lock(fh, 1n, WRITE));
    expect(kernel.error(25, entry.node, fh, 0, 0, 9n)).toBe(0);
    expect(kernel.error(32, entry.node, ...lock(fh, 2n, WRITE))).toBe(EAGAIN);
    expect(kernel.error(25, entry.node, fh, 0, 0, 1n)).toBe(0);
    expect(kernel.error(32, entry.node, ...lock(fh, 2n, WRITE))).toBe(0);
    kernel.release(entry.node, fh);
    expect(kernel.host.openCount).toBe(0);
  });

  it('that wait end with EINTR when interrupted, and hold nothing', () => {
    const kernel = started();
    const { entry, fh } = kernel.create(ROOT, 'a');
    const second = kernel.open(entry.node);
    kernel.ok(32, entry.node, ...lock(fh, 1n, WRITE, FLOCK));
    expect(kernel.send(33, entry.node, ...lock(second, 2n, WRITE, FLOCK))).toBeUndefined();
    const waiting = kernel.lastUnique;
    expect(kernel.send(36, 0, waiting)).toBeUndefined();
    expect(kernel.poll()).toEqual([{ unique: waiting, error: -EINTR, body: Buffer.alloc(0) }]);
    // An interrupt of what is answered already changes nothing.
    expect(kernel.send(36, 0, waiting)).toBeUndefined();
    expect(kernel.poll()).toEqual([]);
    kernel.release(entry.node, fh);
    expect(kernel.error(32, entry.node, ...lock(second, 2n, WRITE, FLOCK))).toBe(0);
  });

  it('that wait for a process of the host are tried again, ever more rarely', () => {
    const kernel = started();
    const { entry, fh } = kernel.create(ROOT, 'a');
    const theirs = kernel.host.open(kernel.host.root, 'a', 2);
    kernel.host.lockFile(theirs, WRITE);
    expect(kernel.send(33, entry.node, ...lock(fh, 1n, WRITE, FLOCK))).toBeUndefined();
    let tries = 0;
    for (; kernel.clock.now() < 1000; tries++) {
      kernel.clock.advance(Math.max(0, kernel.session.pollAt() - kernel.clock.now()));
      expect(kernel.poll()).toEqual([]);
    }
    expect(tries).toBeLessThan(40);
    kernel.host.lockFile(theirs, FREE);
    kernel.clock.advance(50);
    expect(kernel.poll()).toHaveLength(1);
  });
});

describe('bad requests', () => {
  it('of an unknown kind are answered ENOSYS', () => {
    const kernel = started();
    for (const opcode of [7, 19, 40, 48, 63, 64, 4096, 0xffffffff])
      expect(kernel.error(opcode, ROOT, new Uint8Array(64)), String(opcode)).toBe(ENOSYS);
  });

  it('whose length is not that of their header are dropped', () => {
    const kernel = started();
    expect(kernel.raw(new Uint8Array(8))).toBeUndefined();
    expect(kernel.raw(encode([41, 3, 2n, 1n, 0, 0, 0, 0]))).toBeUndefined();
  });

  it('of any content never throw, and get errors that the kernel takes', () => {
    const word = fc.oneof(fc.nat(4), fc.constantFrom(0xffffffff, 0x7fffffff, 4096), fc.nat(0xffffffff));
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(56), fc.constantFrom(0, 1, 2, 3, 99), fc.array(word, { maxLength: 30 })), {
          maxLength: 60,
        }),
        (requests) => {
          const kernel = started({ consistency: 'cached' });
          kernel.create(ROOT, 'a');
          for (const [opcode, node, words] of requests) {
            const reply = kernel.send(opcode, node, ...words);
            if (reply === undefined) continue;
            expect(reply.error).toBeLessThanOrEqual(0);
            expect(reply.error).toBeGreaterThan(-512);
          }
          expect(kernel.bugs).toEqual([]);
        },
      ),
      { numRuns: inputs(300) },
    );
  });

  it('a bug in an operation is EIO for its caller and told', () => {
    const kernel = started();
    kernel.host.statAt = () => {
      throw new Error('bug');
    };
    expect(kernel.error(1, ROOT, 'a')).toBe(EIO);
    expect(kernel.bugs).toHaveLength(1);
  });
});
