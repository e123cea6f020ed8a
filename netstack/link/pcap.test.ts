import { execFileSync } from 'node:child_process';
import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { VNET_HDR_LEN } from './link.ts';
import { Capture, type CaptureOptions } from './pcap.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'dd-pcap-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const WALL_MS = 1_700_000_000_123.5;

function capture(options: Omit<CaptureOptions, 'path'> = {}): { capture: Capture; path: string } {
  const path = join(folder, 'trace.pcap');
  return { capture: new Capture({ path, ...options }, () => WALL_MS), path };
}

function frame(length: number, fill = 7): Uint8Array {
  const bytes = new Uint8Array(VNET_HDR_LEN + length);
  bytes.fill(fill, VNET_HDR_LEN);
  return bytes;
}

function put(target: Capture, bytes: Uint8Array, split = bytes.length): void {
  target.frame(bytes, 0, split, bytes, split, bytes.length - split);
}

describe('a capture', () => {
  test('writes a file header and records with time and both lengths', () => {
    const { capture: target, path } = capture({ snapLen: 20 });
    put(target, frame(60), 40);
    target.close();
    const file = readFileSync(path);
    expect(file.toString('hex', 0, 24)).toBe('d4c3b2a1020004000000000000000000' + '1400000001000000');
    expect([0, 4, 8, 12].map((at) => file.readUInt32LE(24 + at))).toEqual([1_700_000_000, 123_500, 20, 60]);
    expect(file.length).toBe(24 + 16 + 20);
    expect(target.counters).toEqual({ frames: 1, dropped: 0 });
  });

  test('completes checksums that were left to the hardware', () => {
    const { capture: target, path } = capture();
    const bytes = frame(14 + 20 + 8 + 3, 0);
    // NEEDS_CSUM at offset 34 + 6 (UDP) of the frame; the field holds the pseudo header's sum.
    bytes.set([1, 0, 0, 0, 0, 0, 34, 0, 6, 0]);
    bytes.set([0x12, 0x34, 0, 53, 0, 11, 0xab, 0xcd, 1, 2, 3], VNET_HDR_LEN + 34);
    put(target, bytes, 45);
    target.close();
    const udp = readFileSync(path).subarray(24 + 16 + 34);
    let sum = 0x1234 + 53 + 11 + 0xabcd + 0x0102 + 0x0300;
    sum = (sum & 0xffff) + (sum >>> 16);
    expect(udp.readUInt16BE(6)).toBe(~sum & 0xffff);
  });

  test('keeps what its filter wants', () => {
    const { capture: target } = capture({ filter: 'arp' });
    const arp = frame(42);
    arp.set([0x08, 0x06], VNET_HDR_LEN + 12);
    put(target, arp);
    put(target, frame(42));
    target.close();
    expect(target.counters.frames).toBe(1);
  });

  test('rotates by size and keeps so many files', () => {
    const { capture: target, path } = capture({ rotateBytes: 65536, files: 2 });
    for (let i = 0; i < 300; i++) put(target, frame(1400));
    target.close();
    expect([path, `${path}.1`, `${path}.2`, `${path}.3`].map((name) => existsSync(name))).toEqual([
      true,
      true,
      true,
      false,
    ]);
    for (const name of [`${path}.1`, `${path}.2`]) {
      const file = readFileSync(name);
      expect(file.readUInt32LE(0)).toBe(0xa1b2c3d4);
      expect((file.length - 24) % 1416).toBe(0);
    }
  });

  test('loses whole records when the reader of a pipe is slow, and goes on when it reads', () => {
    const path = join(folder, 'trace.pcap');
    execFileSync('mkfifo', [path]);
    expect(() => new Capture({ path }, () => WALL_MS)).toThrow(
      expect.objectContaining({ code: 'ERR_CAPTURE_NO_READER' }),
    );
    const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const target = new Capture({ path }, () => WALL_MS);
    for (let i = 0; i < 2000; i++) put(target, frame(1400));
    expect(target.counters.dropped).toBeGreaterThan(0);
    const parts: Buffer[] = [];
    const chunk = Buffer.alloc(1 << 20);
    const drain = (): void => {
      for (;;) {
        let count = 0;
        try {
          count = readSync(reader, chunk);
        } catch {
          // Empty for now.
        }
        if (count === 0) return;
        parts.push(Buffer.from(chunk.subarray(0, count)));
      }
    };
    drain();
    for (let i = 0; i < 200; i++) {
      target.flush();
      drain();
    }
    put(target, frame(1400, 9));
    target.flush();
    drain();
    target.close();
    closeSync(reader);
    const stream = Buffer.concat(parts);
    expect(stream.length).toBe(24 + target.counters.frames * 1416);
    expect(stream.at(-1)).toBe(9);
  });

  test('is refused with senseless sizes', () => {
    for (const options of [{ rotateBytes: 10 }, { files: 0 }, { snapLen: 3 }])
      expect(() => capture(options)).toThrow(expect.objectContaining({ code: 'ERR_CAPTURE_OPTIONS' }));
  });

  test('to a pipe cannot be rotated', () => {
    const path = join(folder, 'trace.pcap');
    execFileSync('mkfifo', [path]);
    const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    expect(() => new Capture({ path, rotateBytes: 65536 }, () => WALL_MS)).toThrow(
      expect.objectContaining({ code: 'ERR_CAPTURE_OPTIONS', message: expect.stringMatching(/is a pipe/) }),
    );
    closeSync(reader);
  });

  test('whose files cannot be put aside says so and does not hold anybody up', () => {
    const { capture: target, path } = capture({ rotateBytes: 65536, files: 1 });
    mkdirSync(`${path}.1`);
    for (let i = 0; i < 100; i++) put(target, frame(1400));
    expect(target.state.failed).toBe('EISDIR');
    target.close();
  });

  test('of a full disk says so and does not hold anybody up', () => {
    const target = new Capture({ path: '/dev/full' }, () => WALL_MS);
    put(target, frame(60));
    target.flush();
    expect(target.state.failed).toBe('ENOSPC');
    put(target, frame(60));
    target.close();
  });
});
