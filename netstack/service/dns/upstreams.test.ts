import { describe, expect, test } from 'vitest';
import { formatEndpoint } from '../../wire/address.ts';
import {
  parseResolvConf,
  parseSearchDomains,
  parseUpstream,
  UPSTREAM_PENALTY_MS,
  UPSTREAMS_MAX,
  type Upstream,
  UpstreamSet,
} from './upstreams.ts';

const show = (upstream: Upstream | undefined): string | undefined =>
  upstream && formatEndpoint(upstream.address, 0, upstream.port);

test.each([
  ['192.0.2.1', '192.0.2.1:53'],
  ['192.0.2.1#5353', '192.0.2.1:5353'],
  ['192.0.2.1:5353', '192.0.2.1:5353'],
  ['2001:db8::1', '[2001:db8::1]:53'],
  ['2001:db8::1#5353', '[2001:db8::1]:5353'],
  ['[2001:db8::1]:5353', '[2001:db8::1]:5353'],
  ['192.0.2.1#0', undefined],
  ['192.0.2.1#65536', undefined],
  ['example.com', undefined],
  ['', undefined],
])('%s is the server %s', (text, expected) => {
  expect(show(parseUpstream(text))).toBe(expected);
});

test('domains stand before a server as in dnsmasq', () => {
  expect(parseUpstream('/Corp.example/lab.example./10.0.0.1#5353')).toMatchObject({
    port: 5353,
    domains: ['corp.example', 'lab.example'],
  });
  for (const text of ['corp.example/10.0.0.1', '//10.0.0.1', '/10.0.0.1', '/corp.example/'])
    expect(parseUpstream(text)).toBeUndefined();
});

describe('resolv.conf(5)', () => {
  test('its servers in order; comments, options and link-local zones are not servers', () => {
    const text = [
      '# generated',
      '; nameserver 9.9.9.9',
      'search a.test b.test',
      '  nameserver\t192.0.2.1  # first',
      'nameserver 2001:db8::1',
      'nameserver fe80::1%eth0',
      'nameserver 0.0.0.0',
      'options edns0',
      'nameserver',
      '',
    ].join('\n');
    expect(parseResolvConf(text).map(show)).toEqual(['192.0.2.1:53', '[2001:db8::1]:53', '127.0.0.1:53']);
  });

  test.each([
    ['search a.test  b.test\nnameserver 192.0.2.1', ['a.test', 'b.test']],
    ['domain a.test\nsearch b.test', ['b.test']],
    ['search b.test\ndomain a.test', ['a.test']],
    ['nameserver 192.0.2.1', []],
  ])('%j searches %j: the last line counts', (text, domains) => {
    expect(parseSearchDomains(text)).toEqual(domains);
  });

  test('no more servers are taken than can be used', () => {
    const text = Array.from({ length: 100 }, (_, i) => `nameserver 192.0.2.${i}`).join('\n');
    expect(parseResolvConf(text)).toHaveLength(UPSTREAMS_MAX);
  });
});

describe('choice', () => {
  const at = (text: string, more: Partial<Upstream> = {}): Upstream => ({ ...parseUpstream(text)!, ...more });
  const [one, two] = [at('192.0.2.1'), at('192.0.2.2')] as const;

  test('by order, then as configured; a failed server comes last until its penalty ends', () => {
    const set = new UpstreamSet();
    set.set([one, two, at('192.0.2.3', { order: -1 })]);
    const chosen = (now: number): (number | undefined)[] =>
      set.choose(now, 'x').map(({ address }) => address[15]);
    expect(chosen(0)).toEqual([3, 1, 2]);
    set.failed(0, one);
    expect(chosen(1)).toEqual([3, 2, 1]);
    expect(chosen(UPSTREAM_PENALTY_MS)).toEqual([3, 1, 2]);
    set.failed(0, two);
    set.succeeded(one);
    expect(chosen(1)).toEqual([3, 1, 2]);
  });

  test('the same servers again are no change', () => {
    const set = new UpstreamSet();
    expect(set.set([one, two])).toBe(true);
    expect(set.set([at('192.0.2.1'), at('192.0.2.2')])).toBe(false);
    expect(set.set([two, one])).toBe(true);
  });

  test('when servers are for domains only, other names have none', () => {
    const set = new UpstreamSet();
    set.set([at('192.0.2.1', { domains: ['Corp.example.'] })]);
    expect(set.choose(0, 'a.corp.example')).toHaveLength(1);
    expect(set.choose(0, 'example.com')).toEqual([]);
  });
});
