/** Reassembly of any cuts in any order; and the token bucket. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { seededRng } from '#common/rng';
import { StackCounters } from './counters.ts';
import { Packet } from './packet.ts';
import { RateLimit } from './rate-limit.ts';
import { type Assembly, Reassembly } from './reassembly.ts';

function fragment(payload: Uint8Array, start: number, end: number): Packet {
  const packet = new Packet();
  packet.setIpv4(0x0a000002, 0x08080808);
  packet.buf = payload;
  packet.payloadOff = start;
  packet.end = end;
  return packet;
}

describe('reassembly', () => {
  it('gives back what was cut, whatever the cuts, the order and the duplicates', () => {
    const cuts = fc.uniqueArray(fc.integer({ min: 1, max: 200 }), { maxLength: 20 });
    fc.assert(
      fc.property(cuts, fc.nat(1700), fc.nat(), (units, extra, seed) => {
        const rng = seededRng(seed);
        const len = 1601 + extra;
        const payload = rng.fill(new Uint8Array(len));
        const edges = [0, ...units.map((unit) => unit * 8).sort((x, y) => x - y), len];
        const pieces = edges.slice(1).map((end, i) => ({ start: edges[i]!, end, order: rng.uint32() }));
        // Some come twice.
        const sent = [
          ...pieces,
          ...pieces.filter(() => rng.uint32() % 4 === 0).map((piece) => ({ ...piece, order: rng.uint32() })),
        ];
        sent.sort((x, y) => x.order - y.order);
        const counters = new StackCounters();
        const reassembly = new Reassembly(seededRng(1), counters, () => {});
        let done: Assembly | undefined;
        for (const { start, end } of sent) {
          const info = { ident: 1, offset: start, more: end < len, protocol: 17 };
          const assembly = reassembly.add(0, fragment(payload, start, end), info);
          // What comes after completion begins a new datagram, which its end cannot complete.
          done ??= assembly;
        }
        expect(done!.buf.slice(done!.payloadOff, done!.payloadOff + done!.len)).toEqual(payload);
        expect(counters.ipReassemblyRefused).toBe(0);
      }),
    );
  });

  it('remembers refused datagrams for a bounded time and in a bounded number', () => {
    const counters = new StackCounters();
    const timedOut: Assembly[] = [];
    const reassembly = new Reassembly(seededRng(1), counters, (assembly) => timedOut.push(assembly));
    const payload = new Uint8Array(64);
    for (let ident = 0; ident < 5000; ident++) {
      reassembly.add(0, fragment(payload, 0, 16), { ident, offset: 0, more: true, protocol: 17 });
      reassembly.add(0, fragment(payload, 8, 24), { ident, offset: 8, more: true, protocol: 17 });
    }
    expect(reassembly.size).toBeLessThanOrEqual(2048 + 1);
    expect(reassembly.bytes).toBe(0);
    reassembly.poll(60_000);
    expect(reassembly.size).toBe(0);
    // Nobody is told about what was refused.
    expect(timedOut).toEqual([]);
  });
});

it('the token bucket gives a burst, and then its rate', () => {
  const limit = new RateLimit(100, 5);
  const take = (now: number): number => {
    let count = 0;
    while (limit.take(now)) count++;
    return count;
  };
  expect(take(0)).toBe(5);
  expect(take(0)).toBe(0);
  expect(take(30)).toBe(3);
  expect(take(10_000)).toBe(5);
});
