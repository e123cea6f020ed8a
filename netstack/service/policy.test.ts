import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { parseAddress } from '../wire/address.ts';
import {
  DENIED_LOG_MAX,
  EgressRules,
  LEARNED_GRACE_MS,
  NAMES_PER_ADDRESS_MAX,
  type PolicyConfig,
  type PolicyRule,
  policyFaults,
} from './policy.ts';

const GUEST = parseAddress('172.17.0.2')!;
const TCP = 6;
const UDP = 17;

let now: number;
let policy: EgressRules;
beforeEach(() => {
  now = 0;
  policy = new EgressRules(() => now);
});

function set(defaultAction: 'allow' | 'deny', rules: PolicyRule[], metadata?: boolean): void {
  const config: PolicyConfig = { default: defaultAction, rules, ...(metadata !== undefined && { metadata }) };
  expect(policyFaults(config)).toEqual([]);
  policy.set(config);
}

const allows = (address: string, port = 443, protocol = TCP): boolean =>
  policy.allows(protocol, GUEST, 0, parseAddress(address)!, 0, port);

test('without a policy everything may leave, except to where clouds keep credentials', () => {
  expect(allows('192.0.2.1')).toBe(true);
  expect(allows('2001:db8::1')).toBe(true);
  expect(allows('169.254.169.254', 80)).toBe(false);
  expect(allows('fd00:ec2::254', 80)).toBe(false);
  expect(policy.denied()).toMatchObject([
    { rule: -2, target: '169.254.169.254:80' },
    { target: '[fd00:ec2::254]:80' },
  ]);
});

test('metadata addresses are denied whatever the rules say, unless the policy speaks of them', () => {
  set('allow', [{ action: 'allow', cidr: '169.254.0.0/16' }]);
  expect(allows('169.254.169.254', 80)).toBe(false);
  set('allow', [], true);
  expect(allows('169.254.169.254', 80)).toBe(true);
});

test('the first rule that matches decides', () => {
  set('allow', [
    { action: 'allow', cidr: '10.1.0.0/16' },
    { action: 'deny', cidr: '10.0.0.0/8' },
    { action: 'deny', cidr: '2001:db8::/32' },
  ]);
  expect(allows('10.1.2.3')).toBe(true);
  expect(allows('10.2.2.3')).toBe(false);
  expect(allows('2001:db8::5')).toBe(false);
  expect(allows('2001:db9::5')).toBe(true);
  expect(policy.denied().map(({ rule }) => rule)).toEqual([1, 2]);
});

test('an IPv4 network is not an IPv6 one', () => {
  set('allow', [{ action: 'deny', cidr: '0.0.0.0/0' }]);
  expect(allows('192.0.2.1')).toBe(false);
  expect(allows('2001:db8::1')).toBe(true);
  set('allow', [{ action: 'deny', cidr: '192.0.2.1' }]);
  expect(allows('192.0.2.1')).toBe(false);
  expect(allows('192.0.2.2')).toBe(true);
});

test('ports and protocols narrow a rule', () => {
  set('deny', [
    { action: 'allow', port: '443', protocol: 'tcp' },
    { action: 'allow', port: '8000-8010' },
    { action: 'allow', protocol: 'icmp' },
  ]);
  expect(allows('192.0.2.1', 443)).toBe(true);
  expect(allows('192.0.2.1', 443, UDP)).toBe(false);
  expect(allows('192.0.2.1', 8010, UDP)).toBe(true);
  expect(allows('192.0.2.1', 8011)).toBe(false);
  expect(allows('192.0.2.1', 0, 1)).toBe(true);
  expect(allows('2001:db8::1', 0, 58)).toBe(true);
});

describe('names', () => {
  beforeEach(() =>
    set('deny', [
      { action: 'allow', name: 'example.com' },
      { action: 'allow', name: '*.example.org' },
    ]),
  );

  test('open the addresses that they were answered with, while the answer is fresh', () => {
    expect(allows('192.0.2.1')).toBe(false);
    policy.learn('example.com', [parseAddress('192.0.2.1')!, parseAddress('2001:db8::1')!], 30);
    expect(allows('192.0.2.1')).toBe(true);
    expect(allows('2001:db8::1')).toBe(true);
    now = 30_000 + LEARNED_GRACE_MS;
    expect(allows('192.0.2.1')).toBe(true);
    now += 1;
    expect(allows('192.0.2.1')).toBe(false);
  });

  test('with a star stand for everything below, not for the name itself', () => {
    policy.learn('a.b.example.org', [parseAddress('192.0.2.2')!], 30);
    policy.learn('example.org', [parseAddress('192.0.2.3')!], 30);
    policy.learn('notexample.org', [parseAddress('192.0.2.4')!], 30);
    expect(['192.0.2.2', '192.0.2.3', '192.0.2.4'].map((address) => allows(address))).toEqual([
      true,
      false,
      false,
    ]);
  });

  test('that no flow could use are not even asked for', () => {
    expect(policy.allowsName('example.com')).toBe(true);
    expect(policy.allowsName('x.example.org')).toBe(true);
    expect(policy.allowsName('secret-data.evil.test')).toBe(false);
    set('allow', [{ action: 'deny', name: '*.evil.test' }]);
    expect(policy.allowsName('x.evil.test')).toBe(false);
    expect(policy.allowsName('example.com')).toBe(true);
    set('allow', [{ action: 'deny', name: 'mail.test', port: '25' }]);
    expect(policy.allowsName('mail.test')).toBe(true);
    set('deny', [{ action: 'allow', cidr: '192.0.2.0/24' }]);
    expect(policy.allowsName('anything.test')).toBe(true);
  });

  test('of one address are bounded', () => {
    for (let i = 0; i < NAMES_PER_ADDRESS_MAX; i++)
      policy.learn(`n${i}.test`, [parseAddress('192.0.2.9')!], 30);
    policy.learn('example.com', [parseAddress('192.0.2.9')!], 30);
    expect(allows('192.0.2.9')).toBe(true);
    for (let i = 0; i < NAMES_PER_ADDRESS_MAX; i++)
      policy.learn(`n${i}.test`, [parseAddress('192.0.2.9')!], 30);
    expect(allows('192.0.2.9')).toBe(false);
  });
});

describe('TLS server names', () => {
  const addr = parseAddress('192.0.2.1')!;
  const hello = (name: string | undefined, port = 443): boolean =>
    policy.allowsHello(undefined, addr, 0, port, name);

  test('let a connection through until it shows its name, and then decide', () => {
    set('deny', [{ action: 'allow', sni: '*.example.com', port: '443' }]);
    expect(allows('192.0.2.1', 443)).toBe(true);
    expect(policy.awaitsHello(addr, 0, 443)).toBe(true);
    expect(hello('www.example.com')).toBe(true);
    expect(hello('example.com')).toBe(false);
    expect(hello(undefined)).toBe(false);
    expect(policy.denied()).toMatchObject([{ guest: '*', target: '192.0.2.1:443', rule: -1, count: 2 }]);
    expect(policy.counters.policy_hello_denied).toBe(2);
  });

  test('do not open other ports and protocols', () => {
    set('deny', [{ action: 'allow', sni: 'example.com', port: '443' }]);
    expect(allows('192.0.2.1', 80)).toBe(false);
    expect(allows('192.0.2.1', 443, UDP)).toBe(false);
    expect(policy.awaitsHello(addr, 0, 80)).toBe(false);
  });

  test('come in their place among the rules', () => {
    set('allow', [
      { action: 'allow', cidr: '192.0.2.0/28' },
      { action: 'deny', sni: 'evil.test' },
    ]);
    expect(policy.awaitsHello(addr, 0, 443)).toBe(false);
    expect(policy.awaitsHello(parseAddress('198.51.100.1')!, 0, 443)).toBe(true);
    expect(policy.allowsHello(undefined, parseAddress('198.51.100.1')!, 0, 443, 'evil.test')).toBe(false);
    expect(policy.allowsHello(undefined, parseAddress('198.51.100.1')!, 0, 443, undefined)).toBe(true);
  });

  test('that are allowed may be asked for, and others not for that', () => {
    set('deny', [{ action: 'allow', sni: 'example.com' }]);
    expect(policy.allowsName('example.com')).toBe(true);
    expect(policy.allowsName('evil.test')).toBe(false);
    expect(
      policyFaults({ default: 'deny', rules: [{ action: 'allow', sni: 'x.test', protocol: 'udp' }] })[0],
    ).toMatch(/tcp only/);
  });
});

test('what is denied is logged once with a count, by name where it is known', () => {
  set('deny', []);
  policy.learn('example.com', [parseAddress('192.0.2.1')!], 30);
  now = 5;
  allows('192.0.2.1');
  now = 9;
  allows('192.0.2.1');
  expect(policy.denied()).toEqual([
    {
      at: 9,
      guest: '172.17.0.2',
      target: '192.0.2.1:443',
      protocol: 'tcp',
      name: 'example.com',
      rule: -1,
      count: 2,
    },
  ]);
  expect(policy.counters.policy_denied).toBe(2);
  for (let port = 1; port < DENIED_LOG_MAX + 100; port++) allows('192.0.2.2', port);
  expect(policy.denied()).toHaveLength(DENIED_LOG_MAX);
});

test('a denied name is in the log as well', () => {
  set('deny', [{ action: 'deny', name: 'evil.test' }]);
  policy.allowsName('evil.test');
  policy.allowsName('other.test');
  policy.allowsName('evil.test');
  const row = { at: 0, guest: '*', protocol: 'dns' };
  expect(policy.denied()).toEqual([
    { ...row, target: 'other.test', name: 'other.test', rule: -1, count: 1 },
    { ...row, target: 'evil.test', name: 'evil.test', rule: 0, count: 2 },
  ]);
});

test('denials are told once each, and no more than people can read', () => {
  const told: string[] = [];
  policy = new EgressRules(
    () => now,
    ({ target }) => told.push(target),
  );
  set('deny', []);
  for (let i = 0; i < 3; i++) allows('192.0.2.1');
  expect(told).toEqual(['192.0.2.1:443']);
  for (let port = 1; port <= 400; port++) allows('192.0.2.2', port);
  expect(told).toHaveLength(50);
  now = 1000;
  for (let port = 401; port <= 500; port++) allows('192.0.2.2', port);
  expect(told).toHaveLength(60);
  expect(policy.counters.policy_denied).toBe(503);
});

test.each([
  [{ action: 'allow', cidr: '10.0.0.0/33' }, /network/],
  [{ action: 'allow', cidr: 'example.com' }, /network/],
  [{ action: 'allow', port: '99999' }, /port/],
  [{ action: 'allow', port: '9-1' }, /port/],
  [{ action: 'allow', protocol: 'sctp' }, /protocol/],
  [{ action: 'allow', name: 'a.*.test' }, /name/],
  [{ action: 'maybe' }, /action/],
])('the rule %j is refused with its reason', (rule, reason) => {
  expect(policyFaults({ default: 'deny', rules: [rule as PolicyRule] })[0]).toMatch(reason);
});

test('a denied flow stays denied whatever names are learnt of other addresses', () => {
  set('deny', [{ action: 'allow', name: 'example.com', port: '443' }]);
  const byte = fc.nat(255);
  fc.assert(
    fc.property(byte, byte, fc.domain(), (a, b, name) => {
      policy.learn(name === 'example.com' ? 'x.test' : name, [parseAddress(`198.51.${a}.${b}`)!], 60);
      return !allows(`198.51.${a}.${b}`) && !allows('203.0.113.1');
    }),
  );
});
