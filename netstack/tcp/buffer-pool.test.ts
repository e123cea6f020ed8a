import { describe, expect, test } from 'vitest';
import { BufferPool, BufferShare, blockBytesFor } from './buffer-pool.ts';
import { tcpDefaults } from './config.ts';
import { ChallengeBudget, newTcpCounters } from './context.ts';
import { BLOCK_BYTES_MAX, BLOCK_BYTES_MIN } from './limits.ts';
import { Ring } from './ring.ts';
import { type SegmentEmitter, SendBuffer } from './send-buffer.ts';
import type { Region } from './types.ts';

describe('BufferPool', () => {
  test.each([
    [0, BLOCK_BYTES_MIN],
    [1, BLOCK_BYTES_MIN],
    [BLOCK_BYTES_MIN, BLOCK_BYTES_MIN],
    [BLOCK_BYTES_MIN + 1, 2 * BLOCK_BYTES_MIN],
    [65_535, 65_536],
    [65_536, 65_536],
    [BLOCK_BYTES_MAX, BLOCK_BYTES_MAX],
  ])('a block for %i bytes has %i', (bytes, size) => {
    expect(blockBytesFor(bytes)).toBe(size);
  });

  test('a block larger than the largest is a bug', () => {
    expect(() => blockBytesFor(BLOCK_BYTES_MAX + 1)).toThrow('large enough');
  });

  test('gives the block that came back last', () => {
    const pool = new BufferPool({ bytesMax: 1 << 20, keptBytesMax: 1 << 20 });
    const one = pool.acquire(5000)!;
    const two = pool.acquire(5000)!;
    pool.release(one);
    pool.release(two);
    expect(pool.acquire(5000)).toBe(two);
    expect(pool.acquire(5000)).toBe(one);
  });

  test('refuses beyond its limit, counts it, and gives again after a release', () => {
    const pool = new BufferPool({ bytesMax: 16_384, keptBytesMax: 0 });
    const block = pool.acquire(8192)!;
    expect(pool.scarce).toBe(false);
    const other = pool.acquire(8192)!;
    expect(pool.scarce).toBe(true);
    expect(pool.acquire(1)).toBeUndefined();
    expect(pool.refusals).toBe(1);
    pool.release(block);
    pool.release(other);
    expect(pool.acquire(16_384)).toBeDefined();
  });

  test('keeps no more free bytes than it may', () => {
    const pool = new BufferPool({ bytesMax: 1 << 20, keptBytesMax: 8192 });
    const blocks = [pool.acquire(8192)!, pool.acquire(8192)!];
    for (const block of blocks) pool.release(block);
    expect([pool.usedBytes, pool.keptBytes]).toEqual([0, 8192]);
  });

  test('takes its memory from where it is told', () => {
    const asked: number[] = [];
    const pool = new BufferPool({
      bytesMax: 1 << 20,
      keptBytesMax: 1 << 20,
      allocate: (bytes) => {
        asked.push(bytes);
        return new Uint8Array(bytes);
      },
    });
    pool.release(pool.acquire(10_000)!);
    pool.release(pool.acquire(16_000)!);
    expect(asked).toEqual([16_384]);
  });
});

describe('Ring', () => {
  test('keeps bytes at their sequence numbers when it grows across a wrap', () => {
    const pool = new BufferPool({ bytesMax: 1 << 20, keptBytesMax: 1 << 20 });
    const ring = new Ring(pool);
    const from = 0x7ffffff0 | 0; // the sign wraps within
    const bytes = Uint8Array.from({ length: 4000 }, (_, i) => i * 7);
    expect(ring.reserve(4096, from, 0)).toBe(true);
    ring.write(from, bytes, 0, 4000);
    expect(ring.reserve(20_000, from, 4000)).toBe(true);
    expect(ring.capacity).toBe(32_768);
    const out = new Uint8Array(4000);
    ring.copyOut(from, 4000, out);
    expect(out).toEqual(bytes);
    expect(pool.usedBytes).toBe(32_768);
    ring.release();
    ring.release();
    expect(pool.usedBytes).toBe(0);
  });

  test('says so when the pool has no more, and keeps what it has', () => {
    const pool = new BufferPool({ bytesMax: 4096, keptBytesMax: 0 });
    const ring = new Ring(pool);
    expect(ring.reserve(4096, 0, 0)).toBe(true);
    ring.write(0, Uint8Array.of(1, 2, 3), 0, 3);
    expect(ring.reserve(8192, 0, 3)).toBe(false);
    expect([...ring.block.subarray(0, 3)]).toEqual([1, 2, 3]);
  });
});

describe('BufferShare', () => {
  test('gives no more than its part, whatever the pool has, and counts the refusal', () => {
    const pool = new BufferPool({ bytesMax: 1 << 20, keptBytesMax: 0 });
    const share = new BufferShare(pool, 16_384);
    const block = share.acquire(16_384)!;
    expect(share.acquire(1)).toBeUndefined();
    expect([share.usedBytes, share.scarce, pool.usedBytes, pool.scarce, pool.refusals]).toEqual([
      16_384,
      true,
      16_384,
      false,
      1,
    ]);
    share.release(block);
    expect([share.usedBytes, share.scarce, pool.usedBytes]).toEqual([0, false, 0]);
  });

  test('is scarce with its pool, and gives nothing when that has nothing', () => {
    const pool = new BufferPool({ bytesMax: 16_384, keptBytesMax: 0 });
    const share = new BufferShare(pool, 1 << 20);
    pool.acquire(16_384);
    expect(share.scarce).toBe(true);
    expect(share.acquire(4096)).toBeUndefined();
    expect(share.usedBytes).toBe(0);
  });
});

describe('SendBuffer', () => {
  const MSS_LARGE = 30_000;
  const MSS_SMALL = 1460;
  const LEN = 60_000;

  /** A buffer with 60,000 bytes, of which 20,000 lie before the wrap. */
  function filled(capacity = 0x80000): { buffer: SendBuffer; start: number; bytes: Uint8Array } {
    const start = capacity - 20_000;
    const pool = new BufferPool({ bytesMax: 1 << 20, keptBytesMax: 0 });
    const config = { ...tcpDefaults, sendBytesInitial: capacity };
    const buffer = new SendBuffer(
      { config, pool, counters: newTcpCounters(), challenges: new ChallengeBudget() },
      start,
    );
    const bytes = Uint8Array.from({ length: LEN }, (_, index) => index * 7);
    const region: Region = { buf: bytes, off: 0, len: 0 };
    for (let done = 0; done < LEN; ) {
      const { buf, off, len } = buffer.writable(region, start, 0);
      const part = Math.min(len, LEN - done);
      buf.set(bytes.subarray(done, done + part), off);
      buffer.produced(part, start);
      done += part;
    }
    return { buffer, start, bytes };
  }

  test('ends a large segment at the wrap and puts a small one that lies across it together', () => {
    const { buffer, start } = filled();
    expect(buffer.together(start, LEN, MSS_LARGE)).toBe(20_000);
    expect(buffer.together(start + 20_000, LEN - 20_000, MSS_LARGE)).toBe(LEN - 20_000);
    const whole = 20_000 - (20_000 % MSS_SMALL);
    expect(buffer.together(start, LEN, MSS_SMALL)).toBe(whole);
    expect(buffer.together(start + whole, LEN - whole, MSS_SMALL)).toBe(MSS_SMALL);
  });

  test('does not cut where a ring holds few segments', () => {
    const { buffer, start } = filled(0x10000);
    expect(buffer.together(start, LEN, MSS_LARGE)).toBe(MSS_LARGE);
  });

  test.each([MSS_LARGE, MSS_SMALL])('emits all bytes in order across the wrap, in segments of %i', (mss) => {
    const { buffer, start, bytes } = filled();
    const sent = new Uint8Array(LEN);
    const emitter: SegmentEmitter = {
      emit(seq, _flags, buf, off, len) {
        sent.set(buf.subarray(off, off + len), seq - start);
        return true;
      },
    };
    for (let done = 0; done < LEN; ) {
      const len = buffer.together(start + done, LEN - done, mss);
      buffer.emit(emitter, start + done, 0, len, mss);
      done += len;
    }
    expect(Buffer.compare(sent, bytes)).toBe(0);
  });
});
