import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { openCalls, singleCalls } from '#common/native/calls';
import { close, read, socketPair, write } from '#common/native/socket';
import { WriteBatch } from './write-batch.ts';

const fds: number[] = [];
afterEach(() => {
  for (const fd of fds.splice(0)) close(fd);
});

function pipe(): { near: number; received: () => string } {
  const [near, far] = socketPair();
  fds.push(near, far);
  const buf = new Uint8Array(new ArrayBuffer(1 << 20));
  return {
    near,
    received: () => Buffer.from(buf.subarray(0, read(far, buf, 0, buf.length))).toString('latin1'),
  };
}

function add(batch: WriteBatch, fd: number, head: string, body?: string): void {
  const first = Buffer.from(`..${head}`);
  const second = body === undefined ? undefined : Buffer.from(`.${body}`);
  batch.add(fd, first, 2, first.length - 2, second, 1, second ? second.length - 1 : 0);
}

const together = openCalls();
afterAll(() => together.close());

describe.each([together, singleCalls])('by calls that are made $kind', (calls) => {
  it('writes nothing before it is flushed, then every frame in the order in which it came', () => {
    const batch = new WriteBatch(calls);
    const one = pipe();
    const other = pipe();
    add(batch, one.near, 'a', 'bc');
    add(batch, other.near, 'X');
    add(batch, one.near, 'd');
    write(one.near, Buffer.from('first '), 0, 6);
    batch.flush();
    expect(one.received()).toBe('first abcd');
    expect(other.received()).toBe('X');
    batch.flush();
    write(one.near, Buffer.from('last'), 0, 4);
    expect(one.received()).toBe('last');
  });

  it('makes room by itself, for many frames and for large ones', () => {
    const batch = new WriteBatch(calls);
    const { near, received } = pipe();
    const frames = Array.from({ length: 100 }, (_, index) => `${index},`);
    for (const frame of frames) add(batch, near, frame);
    batch.flush();
    expect(received()).toBe(frames.join(''));
    const large = 'y'.repeat(2000);
    for (let i = 0; i < 34; i++) add(batch, near, '', large);
    batch.flush();
    expect(received() === large.repeat(34)).toBe(true);
  });
});
