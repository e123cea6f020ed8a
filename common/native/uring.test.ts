import { afterEach, describe, expect, it, vi } from 'vitest';
import { SyscallError } from '../errors.ts';
import { openCalls } from './calls.ts';
import { NativeMemory } from './memory.ts';
import { close, read, socketPair } from './socket.ts';
import { URING_SEND, URING_WRITE, Uring } from './uring.ts';

const EBADF = 9;
const EAGAIN = 11;
const DONT_WAIT = 0x40;
const NO_WAIT = 0x8;
const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
  vi.unstubAllEnvs();
});

describe('where io_uring', () => {
  it('is forbidden, calls are made one by one', () => {
    const forbidden = () => {
      throw new SyscallError('io_uring_setup', 'EPERM', 1);
    };
    expect(openCalls(forbidden).kind).toBe('single');
  });

  it('is not wanted, it is not asked for', () => {
    vi.stubEnv('DRYDOCK_IO_URING', '0');
    expect(openCalls().kind).toBe('single');
  });
});

/** Containers' seccomp filters forbid it, and old kernels have none. */
function forbidden(): boolean {
  const calls = openCalls();
  calls.close();
  return calls.kind !== 'io_uring';
}

function open(): { ring: Uring; near: number; far: number; memory: NativeMemory } {
  const ring = new Uring(4);
  const [near, far] = socketPair();
  cleanups.push(
    () => ring.close(),
    () => close(near),
    () => close(far),
  );
  const memory = new NativeMemory(1 << 20);
  for (let i = 0; i < memory.bytes.length; i++) memory.bytes[i] = 97 + (i % 26);
  return { ring, near, far, memory };
}

function received(fd: number): string {
  const buf = new Uint8Array(new ArrayBuffer(1000));
  return Buffer.from(buf.subarray(0, read(fd, buf, 0, buf.length))).toString('latin1');
}

describe.skipIf(forbidden())('a ring', () => {
  it('carries requests out in their order and tells what each gave, round after round', () => {
    const { ring, near, far, memory } = open();
    for (let round = 0; round < 20; round++) {
      ring.add(URING_WRITE, near, memory.address, 2, NO_WAIT, 0, 0);
      ring.add(URING_SEND, near, memory.address + 2, 1, DONT_WAIT, 0, 0);
      ring.add(URING_WRITE, near, memory.address + 3, 3, NO_WAIT, 0, 0);
      ring.run();
      expect([0, 1, 2].map((index) => ring.result(index))).toEqual([2, 1, 3]);
      expect(received(far)).toBe('abcdef');
    }
  });

  it('goes on behind a request that fails', () => {
    const { ring, near, far, memory } = open();
    ring.add(URING_WRITE, 1 << 20, memory.address, 1, NO_WAIT, 0, 0);
    ring.add(URING_WRITE, near, memory.address, 1, NO_WAIT, 0, 0);
    ring.run();
    expect([0, 1].map((index) => ring.result(index))).toEqual([-EBADF, 1]);
    expect(received(far)).toBe('a');
  });

  it('does not wait for a full socket', () => {
    const { ring, near, memory } = open();
    for (let i = 0; i < 4; i++)
      ring.add(URING_SEND, near, memory.address, memory.bytes.length, DONT_WAIT, 0, 0);
    ring.run();
    expect(ring.result(3)).toBe(-EAGAIN);
  });
});
