import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openCalls, singleCalls } from '#common/native/calls';
import { type Received, receiveFrom } from '#common/native/datagrams';
import { bind, close, localPort, openSocket } from '#common/native/socket';
import { parseAddress } from '../wire/address.ts';
import { type BatchedReader, type BatchedSender, ReadBatch, SendBatch } from './datagram-batch.ts';
import { Poller } from './poller.ts';
import { receiveBatch } from './receive-batch.ts';

const LOOPBACK = parseAddress('127.0.0.1')!;
const EAGAIN = 11;
const EINVAL = 22;

let fds: number[] = [];
let poller: Poller;
beforeEach(() => {
  poller = new Poller();
});
afterEach(() => {
  receiveBatch.flush();
  for (const fd of fds) close(fd);
  fds = [];
  poller.close();
});

const together = openCalls();
afterAll(() => together.close());

function bound(): { fd: number; port: number } {
  const fd = openSocket(4, 'datagram');
  fds.push(fd);
  bind(fd, LOOPBACK, 0, 0);
  return { fd, port: localPort(fd) };
}

class Sender implements BatchedSender {
  readonly fd: number;
  readonly errors: number[] = [];
  again = false;
  constructor(fd: number) {
    this.fd = fd;
  }
  notSent(errno: number): boolean {
    this.errors.push(errno);
    return this.again;
  }
}

class Reader implements BatchedReader {
  fd: number;
  readonly came: BatchedReader['came'];
  constructor(fd: number, came: BatchedReader['came']) {
    this.fd = fd;
    this.came = came;
  }
}

const from: Received = { addr: new Uint8Array(16), port: 0, ttl: 0, trafficClass: 0 };
const buf = new Uint8Array(new ArrayBuffer(100));

function received(fd: number): [text: string, port: number][] {
  const found: [string, number][] = [];
  for (;;) {
    const length = receiveFrom(fd, buf, 0, buf.length, from);
    if (length < 0) return found;
    found.push([Buffer.from(buf.subarray(0, length)).toString(), from.port]);
  }
}

describe.each([together, singleCalls])('datagrams by calls that are made $kind', (calls) => {
  it('are sent when the batch of frames ends, each from its socket and in order', () => {
    const batch = new SendBatch(calls);
    const target = bound();
    const [one, other] = [bound(), bound()];
    Buffer.from('abcdef').copy(receiveBatch.bytes);
    batch.add(new Sender(one.fd), 0, 2, LOOPBACK, 0, target.port);
    batch.add(new Sender(other.fd), 2, 1, LOOPBACK, 0, target.port);
    batch.add(new Sender(one.fd), 3, 3, LOOPBACK, 0, target.port);
    expect(received(target.fd)).toEqual([]);
    receiveBatch.flush();
    expect(received(target.fd)).toEqual([
      ['ab', one.port],
      ['c', other.port],
      ['def', one.port],
    ]);
  });

  it('are more than one batch of calls without being lost', () => {
    const batch = new SendBatch(calls);
    const target = bound();
    const sender = new Sender(bound().fd);
    for (let i = 0; i < 150; i++) batch.add(sender, i, 1, LOOPBACK, 0, target.port);
    receiveBatch.flush();
    expect(received(target.fd)).toHaveLength(150);
  });

  it('tell their sender when they could not be sent, and are tried again if it wants', () => {
    const batch = new SendBatch(calls);
    const target = bound();
    const [bad, good] = [new Sender(bound().fd), new Sender(bound().fd)];
    bad.again = true;
    batch.add(bad, 0, 1, LOOPBACK, 0, 0);
    batch.add(good, 0, 1, LOOPBACK, 0, target.port);
    receiveBatch.flush();
    expect(bad.errors).toEqual([EINVAL]);
    expect(good.errors).toEqual([]);
    expect(received(target.fd)).toHaveLength(1);
  });

  it('are read together when the events of a turn have been handed out', () => {
    const reads = new ReadBatch(poller, calls);
    const source = bound();
    const targets = Array.from({ length: 40 }, bound);
    const sender = new SendBatch(singleCalls);
    for (const [index, { port }] of targets.entries()) {
      receiveBatch.bytes[index] = 65 + index;
      sender.add(new Sender(source.fd), index, 1, LOOPBACK, 0, port);
    }
    receiveBatch.flush();
    const got: string[] = [];
    for (const { fd } of targets)
      reads.add(
        new Reader(fd, (length, bytes, off, { port }) => {
          if (length === 1 && port === source.port) got.push(String.fromCharCode(bytes[off]!));
        }),
      );
    expect(got).toEqual([]);
    poller.dispatch();
    expect(got.join('')).toBe(targets.map((_, index) => String.fromCharCode(65 + index)).join(''));
  });

  it('that are not there, or whose socket was closed by another, are not read', () => {
    const reads = new ReadBatch(poller, calls);
    const lengths: number[] = [];
    const closed = new Reader(bound().fd, (length) => lengths.push(length));
    reads.add(
      new Reader(bound().fd, (length) => {
        lengths.push(length);
        closed.fd = -1;
      }),
    );
    reads.add(closed);
    poller.dispatch();
    expect(lengths).toEqual([-EAGAIN]);
  });
});
