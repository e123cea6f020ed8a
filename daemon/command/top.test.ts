import { expect, it } from 'vitest';
import type { FlowInfo } from '#netstack';
import { topRows, topText } from './top.ts';

function flow(id: number, bytesToGuest: number, over: Partial<FlowInfo> = {}): FlowInfo {
  return {
    id,
    protocol: 'tcp',
    initiator: 'guest',
    guest: '172.17.0.2:4000',
    target: '1.2.3.4:443',
    state: 'established',
    ageMs: 5000,
    idleMs: 20,
    bytesFromGuest: 100,
    bytesToGuest,
    rttMs: 1.25,
    retransmits: 2,
    ...over,
  };
}

it('flows come the fastest first, by the time between two readings, with the names of containers', () => {
  const networks = (slow: number, fast: number): Parameters<typeof topRows>[0] => [
    {
      name: 'bridge',
      names: { '172.17.0.2': 'web' },
      flows: [flow(1, slow), flow(2, fast, { guest: '172.17.0.9:1' })],
    },
  ];
  const first = topRows(networks(9000, 0), undefined, 0);
  expect(first.rows.map(({ bytesPerSecond }) => bytesPerSecond)).toEqual([0, 0]);
  const { rows } = topRows(networks(9100, 5000), first.reading, 500);
  expect(rows.map(({ from, bytesPerSecond }) => [from, bytesPerSecond])).toEqual([
    ['172.17.0.9:1', 10_000],
    ['web', 200],
  ]);
  expect(topText(rows, { columns: 200, lines: 20 })).toBe(
    `2 flows, 10 kB/s
FROM          PROTO  TO           STATE           RATE   SENT  RECEIVED     RTT  AGAIN   IDLE
172.17.0.9:1  tcp    1.2.3.4:443  established  10 kB/s  100 B    5.0 kB  1.3 ms      2  20 ms
web           tcp    1.2.3.4:443  established  200 B/s  100 B    9.1 kB  1.3 ms      2  20 ms`,
  );
});

it('names that guests gave themselves are shown, and not obeyed', () => {
  const networks = [
    { name: '', names: { '172.17.0.2': 'a\u001b[2J' }, flows: [flow(1, 0, { target: '\u009b1m' })] },
  ];
  const text = topText(topRows(networks, undefined, 0).rows, { columns: 200, lines: 20 });
  for (const obeyed of ['\u001b[2J', '\u009b']) expect(text).not.toContain(obeyed);
  expect(text).toContain('a\\x1b[2J');
});

it('the table fits the terminal', () => {
  const { rows } = topRows(
    [{ name: 'bridge', names: {}, flows: Array.from({ length: 50 }, (_, id) => flow(id, id)) }],
    undefined,
    0,
  );
  const lines = topText(rows, { columns: 40, lines: 12 }).split('\n');
  expect(lines).toHaveLength(11);
  expect(Math.max(...lines.map(({ length }) => length))).toBeLessThanOrEqual(40);
});
