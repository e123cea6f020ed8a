/** Kqueue over the double of Darwin's library: what it asks for, and what it makes of the answers. */
import { describe, expect, it } from 'vitest';
import { CONSTANTS, STRUCTS } from '#common/native/darwin/abi';
import { Kqueue } from '#common/native/darwin/kqueue';
import { EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP } from '#common/native/readiness';
import { DarwinDouble } from '../../test/support/darwin-library.ts';
import { Poller } from './poller.ts';

const EVENTS = CONSTANTS['sys/event.h'];
const ERRORS = CONSTANTS['errno.h'];
const { size, fields } = STRUCTS['struct kevent'];

function kevent(ident: number, filter: number, flags: number, tag: number, fflags = 0): Buffer {
  const event = Buffer.alloc(size);
  event.writeBigUInt64LE(BigInt(ident), fields.ident);
  event.writeInt16LE(filter, fields.filter);
  event.writeUInt16LE(flags, fields.flags);
  event.writeUInt32LE(fflags, fields.fflags);
  event.writeUInt32LE(tag, fields.udata);
  return event;
}

function setUp(): { library: DarwinDouble; kqueue: Kqueue; changes: () => string[] } {
  const library = new DarwinDouble();
  const kqueue = new Kqueue(8, library);
  library.calls.length = 0;
  const changes = (): string[] =>
    library.calls.splice(0).map((call) => {
      const bytes = Buffer.from(/<(\w+)>/.exec(call)![1]!, 'hex');
      const filter = bytes.readInt16LE(fields.filter) === EVENTS.EVFILT_READ ? 'read' : 'write';
      const flags = Object.entries(EVENTS)
        .filter(([name, bit]) => name.startsWith('EV_') && bytes.readUInt16LE(fields.flags) & bit)
        .map(([name]) => name);
      return `${bytes.readBigUInt64LE(fields.ident)} ${filter} ${flags.join('|')} ${bytes.readUInt32LE(fields.udata)}`;
    });
  return { library, kqueue, changes };
}

describe('Kqueue', () => {
  it('watches each direction by a filter of its own, edge-triggered when asked', () => {
    const { kqueue, changes } = setUp();
    kqueue.add(5, EPOLLIN, 7);
    expect(changes()).toEqual(['5 read EV_ADD 7']);
    kqueue.add(6, (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) >>> 0, 0xfffffff0);
    expect(changes()).toEqual(['6 read EV_ADD|EV_CLEAR 4294967280', '6 write EV_ADD|EV_CLEAR 4294967280']);
  });

  it('forgets the directions that are no longer wanted, watched or not', () => {
    const { library, kqueue, changes } = setUp();
    kqueue.modify(5, EPOLLIN, 8);
    expect(changes()).toEqual(['5 write EV_DELETE 0', '5 read EV_ADD 8']);
    library.failing = 1;
    library.errnoValue = ERRORS.ENOENT;
    kqueue.remove(5);
    expect(changes()).toEqual(['5 read EV_DELETE 0', '5 write EV_DELETE 0']);
  });

  it('throws what the kernel says of a descriptor that it does not watch', () => {
    const { library, kqueue } = setUp();
    library.failing = 0;
    expect(() => kqueue.add(5, EPOLLIN, 1)).toThrow(/kevent.*fd 5/);
  });

  it.each([
    ['bytes to read', EVENTS.EVFILT_READ, 0, 0, EPOLLIN],
    ['room to write', EVENTS.EVFILT_WRITE, 0, 0, EPOLLOUT],
    ['the end of the peer', EVENTS.EVFILT_READ, EVENTS.EV_EOF, 0, EPOLLIN | EPOLLRDHUP],
    ['a connect that failed', EVENTS.EVFILT_WRITE, EVENTS.EV_EOF, 61, EPOLLOUT | EPOLLHUP | EPOLLERR],
    ['an error of the watching itself', EVENTS.EVFILT_READ, EVENTS.EV_ERROR, 0, EPOLLERR],
  ])('tells %s in the bits of epoll', (_what, filter, flags, fflags, mask) => {
    const { library, kqueue } = setUp();
    library.events.push(kevent(9, filter, flags, 3, fflags));
    expect(kqueue.wait(0)).toBe(1);
    expect([kqueue.eventFd(0), kqueue.eventTag(0), kqueue.eventMask(0)]).toEqual([9, 3, mask]);
  });

  it('waits for as long as it is told, for ever, or not at all, and takes a signal for no events', () => {
    const { library, kqueue } = setUp();
    for (const timeoutMs of [1500, 0, -1]) expect(kqueue.wait(timeoutMs)).toBe(0);
    const limits = library.calls.map((call) => call.split(' ').at(-1));
    const timespec = (seconds: bigint, nanoseconds: bigint): string => {
      const bytes = Buffer.alloc(16);
      bytes.writeBigInt64LE(seconds, 0);
      bytes.writeBigInt64LE(nanoseconds, 8);
      return `<${bytes.toString('hex')}>`;
    };
    expect(limits).toEqual([timespec(1n, 500_000_000n), timespec(0n, 0n), 'null']);
    library.failing = 3;
    library.errnoValue = ERRORS.EINTR;
    expect(kqueue.wait(0)).toBe(0);
  });

  it('serves a poller as epoll does: an event for an earlier holder of a number is dropped', () => {
    const { library, kqueue } = setUp();
    const poller = new Poller(kqueue);
    const seen: string[] = [];
    poller.watch(5, EPOLLIN, (mask) => seen.push(`first ${mask}`));
    const [first] = library.calls.splice(0);
    const tag = Buffer.from(/<(\w+)>/.exec(first!)![1]!, 'hex').readUInt32LE(fields.udata);
    library.events.push(kevent(5, EVENTS.EVFILT_READ, 0, tag));
    poller.wait(0);
    poller.dispatch();
    poller.unwatch(5);
    poller.watch(5, EPOLLIN, (mask) => seen.push(`second ${mask}`));
    library.events.push(kevent(5, EVENTS.EVFILT_READ, 0, tag));
    poller.wait(0);
    poller.dispatch();
    expect(seen).toEqual([`first ${EPOLLIN}`]);
    poller.close();
    expect(library.calls.at(-1)).toMatch(/^close /);
  });
});
