import { expect, test } from 'vitest';
import type { Query } from './query.ts';
import { DNS_LOG_ENTRIES_MAX, DnsQueryLog } from './query-log.ts';

function question(name: string, type = 1): Query {
  const client = { transport: 'udp' as const, id: '10.0.0.2', reply() {} };
  return { client, question: { name, type } } as unknown as Query;
}

test('the log of questions tells who asked what, how it ended and how long it took', () => {
  let now = 1000;
  const log = new DnsQueryLog(() => now);
  const client = log.watch(question('web.test', 28));
  expect(log.entries()).toMatchObject([
    { guest: '10.0.0.2', name: 'web.test', type: 'AAAA', outcome: 'pending' },
  ]);
  now = 1025;
  client.reply(Uint8Array.of(0, 1, 0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0));
  expect(log.entries()).toMatchObject([{ at: 1000, outcome: 'NXDOMAIN', answers: 0, tookMs: 25 }]);
});

test('the log of questions keeps the latest, in order', () => {
  const log = new DnsQueryLog(() => 0);
  for (let i = 0; i < DNS_LOG_ENTRIES_MAX + 3; i++) log.watch(question(`n${i}`));
  const names = log.entries().map(({ name }) => name);
  expect(names).toHaveLength(DNS_LOG_ENTRIES_MAX);
  expect([names[0], names.at(-1)]).toEqual(['n3', `n${DNS_LOG_ENTRIES_MAX + 2}`]);
});
