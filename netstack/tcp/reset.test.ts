import { expect, test } from 'vitest';
import { formatTcp, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, TcpSegment } from '../wire/tcp.ts';
import { ChallengeBudget } from './context.ts';
import { resetFor } from './reset.ts';

function segment(flags: number, payload = 0): TcpSegment {
  const seg = new TcpSegment();
  Object.assign(seg, { sourcePort: 5000, destinationPort: 80, sequence: 100, acknowledgment: 700, flags });
  seg.payload = new Uint8Array(payload);
  seg.payloadEnd = payload;
  return seg;
}

// RFC 9293 section 3.10.7.1
test.each([
  ['a SYN', segment(TCP_SYN), '80 > 5000 [RA] seq 0 ack 101 win 0 len 0'],
  ['a SYN with data and FIN', segment(TCP_SYN | TCP_FIN, 10), '80 > 5000 [RA] seq 0 ack 112 win 0 len 0'],
  ['data with an ACK', segment(TCP_ACK, 10), '80 > 5000 [R] seq 700 win 0 len 0'],
  ['a SYN-ACK', segment(TCP_SYN | TCP_ACK), '80 > 5000 [R] seq 700 win 0 len 0'],
])('%s to no connection is answered', (_what, seg, text) => {
  const reply = new TcpSegment();
  expect(resetFor(seg, reply)).toBe(true);
  expect(formatTcp(reply)).toBe(text);
});

test('a RST is never answered', () => {
  expect(resetFor(segment(TCP_RST), new TcpSegment())).toBe(false);
  expect(resetFor(segment(TCP_RST | TCP_ACK), new TcpSegment())).toBe(false);
});

test('the budget of challenge ACKs renews every second (RFC 5961 section 10)', () => {
  const budget = new ChallengeBudget(2);
  expect([budget.take(0), budget.take(500), budget.take(900)]).toEqual([true, true, false]);
  expect([budget.take(1000), budget.take(1000), budget.take(1999)]).toEqual([true, true, false]);
});
