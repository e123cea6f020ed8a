import { describe, expect, test } from 'vitest';
import { seededRng } from '#common/rng';
import { checkFaults, type FaultOptions, Faults } from './faults.ts';
import type { FrameSink, Link } from './link.ts';
import { VNET_HDR_LEN } from './link.ts';

const FRAMES = 2000;

function wire(options: FaultOptions, seed = 1) {
  let nowMs = 0;
  const sent: Uint8Array[] = [];
  const received: Uint8Array[] = [];
  let inject: FrameSink = { frame() {} };
  let closed = false;
  const inner: Link = {
    mtuBytes: 1500,
    offload: false,
    send(head, headOff, headLen) {
      sent.push(head.slice(headOff, headOff + headLen));
      return true;
    },
    flush() {},
    start(sink) {
      inject = sink;
    },
    close() {
      closed = true;
    },
  };
  const faults = new Faults(options, seededRng(seed), () => nowMs);
  const link = faults.wrap(inner);
  link.start({ frame: (buf, off, end) => received.push(buf.slice(off, end)) });
  return {
    link,
    faults,
    sent,
    received,
    isClosed: () => closed,
    send(number: number) {
      const frame = numbered(number);
      // In two pieces, as the stack sends.
      link.send(frame, 0, 20, frame, 20, frame.length - 20);
    },
    receive: (number: number) => inject.frame(numbered(number), 0, 60),
    advance(ms: number) {
      nowMs += ms;
      faults.poll(nowMs);
    },
  };
}

function numbered(number: number): Uint8Array {
  const frame = new Uint8Array(60);
  new DataView(frame.buffer).setUint32(56, number);
  return frame;
}

const numberOf = (frame: Uint8Array): number => new DataView(frame.buffer, frame.byteOffset).getUint32(56);

describe('a bad wire', () => {
  test('without faults passes everything both ways at once', () => {
    const { send, receive, sent, received } = wire({});
    for (let i = 0; i < 10; i++) {
      send(i);
      receive(i);
    }
    expect(sent.map(numberOf)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(received.map(numberOf)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  test('loses about as many frames as asked, the same ones for the same seed', () => {
    const runs = [5, 5, 6].map((seed) => {
      const { send, receive, sent, received } = wire({ drop: 0.1 }, seed);
      for (let i = 0; i < FRAMES; i++) {
        send(i);
        receive(i);
      }
      return [sent, received].map((frames) => frames.map(numberOf));
    });
    for (const direction of runs[0]!) {
      expect(direction.length).toBeGreaterThan(FRAMES * 0.87);
      expect(direction.length).toBeLessThan(FRAMES * 0.93);
    }
    expect(runs[1]).toEqual(runs[0]);
    expect(runs[2]).not.toEqual(runs[0]);
  });

  test('delays every frame and keeps the order, with jitter too', () => {
    const { send, sent, faults, advance } = wire({ delayMs: 20, jitterMs: 10 });
    for (let i = 0; i < 50; i++) send(i);
    expect(faults.pollAt()).toBeGreaterThanOrEqual(20);
    advance(19);
    expect(sent).toHaveLength(0);
    advance(11);
    expect(sent.map(numberOf)).toEqual(Array.from({ length: 50 }, (_, i) => i));
    expect(faults.pollAt()).toBe(Number.POSITIVE_INFINITY);
  });

  test('lets frames be overtaken, and loses none by it', () => {
    const { send, sent, advance } = wire({ reorder: 0.2 });
    for (let i = 0; i < 500; i++) {
      send(i);
      advance(1);
    }
    advance(10);
    const order = sent.map(numberOf);
    expect(order).not.toEqual([...order].sort((a, b) => a - b));
    expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: 500 }, (_, i) => i));
  });

  test('doubles frames', () => {
    const { send, sent } = wire({ duplicate: 0.5 });
    for (let i = 0; i < FRAMES; i++) send(i);
    expect(sent.length).toBeGreaterThan(FRAMES * 1.4);
    expect(new Set(sent.map(numberOf)).size).toBe(FRAMES);
  });

  test('flips one bit of a damaged frame and none of its virtio_net_hdr', () => {
    const { send, sent } = wire({ corrupt: 1 });
    for (let i = 0; i < 200; i++) send(0);
    for (const frame of sent) {
      const bits = frame.reduce((sum, byte) => sum + byte.toString(2).replaceAll('0', '').length, 0);
      expect(bits).toBe(1);
      expect(frame.subarray(0, VNET_HDR_LEN).every((byte) => byte === 0)).toBe(true);
    }
  });

  test('keeps a bounded number of frames in waiting', () => {
    const { link } = wire({ delayMs: 1000 });
    const frame = numbered(1);
    let taken = 0;
    for (let i = 0; i < 10_000; i++) if (link.send(frame, 0, 60, undefined, 0, 0)) taken++;
    expect(taken).toBe(4096);
  });

  test('is forgotten when it is closed', () => {
    const { link, send, sent, advance, faults, isClosed } = wire({ delayMs: 10 });
    send(1);
    link.close();
    advance(20);
    expect([isClosed(), sent.length, faults.pollAt()]).toEqual([true, 0, Number.POSITIVE_INFINITY]);
  });
});

test.each<[FaultOptions, string | undefined]>([
  [{ drop: 1, delayMs: 60_000, seed: 0 }, undefined],
  [{ drop: 1.1 }, 'The chance "drop" is 1.1, not from 0 to 1.'],
  [{ corrupt: Number.NaN }, 'The chance "corrupt" is NaN, not from 0 to 1.'],
  [{ jitterMs: -1 }, '"jitterMs" is -1, not from 0 to 60000 milliseconds.'],
  [{ seed: 1.5 }, 'The seed is 1.5, no whole number from 0 to 4294967295.'],
])('of the faults %j is wrong: %s', (options, wrong) => {
  expect(checkFaults(options)).toBe(wrong);
});
