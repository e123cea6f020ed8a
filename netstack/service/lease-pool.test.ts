import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { inputs } from '../../test/support/fuzz/inputs.ts';
import { formatIpv4, formatMac, parseIpv4 } from '../wire/address.ts';
import { DECLINE_HOLD_MS, dockerMac, hostLabel, LeasePool, OFFER_HOLD_MS } from './lease-pool.ts';

const ip = (text: string): number => parseIpv4(text)!;
const HOUR_MS = 3_600_000;

let pool: LeasePool;
beforeEach(() => {
  pool = new LeasePool({ network: ip('192.0.2.0'), prefixLength: 29, excluded: [ip('192.0.2.1')] });
});

describe('attached guests', () => {
  test("get the lowest free address and docker's MAC for it", () => {
    const lease = pool.attach(0);
    expect(formatIpv4(lease.address)).toBe('192.0.2.2');
    expect(formatMac(lease.mac)).toBe('02:42:c0:00:02:02');
    expect(formatIpv4(pool.attach(0).address)).toBe('192.0.2.3');
    pool.detach(lease.address);
    expect(pool.attach(0).address).toBe(lease.address);
  });

  test("get what they want, unless it is taken, foreign or no host's", () => {
    expect(pool.attach(0, { wanted: ip('192.0.2.5') }).address).toBe(ip('192.0.2.5'));
    const wanting = (text: string): unknown => {
      try {
        return pool.attach(0, { wanted: ip(text) });
      } catch (error) {
        return (error as { code: string }).code;
      }
    };
    expect(wanting('192.0.2.5')).toBe('ERR_ADDRESS_IN_USE');
    expect(wanting('192.0.2.1')).toBe('ERR_ADDRESS_IN_USE');
    expect(wanting('192.0.2.0')).toBe('ERR_ADDRESS_INVALID');
    expect(wanting('192.0.2.7')).toBe('ERR_ADDRESS_INVALID');
    expect(wanting('198.51.100.1')).toBe('ERR_ADDRESS_INVALID');
  });

  test('are told when the pool is exhausted', () => {
    for (let i = 0; i < 5; i++) pool.attach(0);
    expect(() => pool.attach(0)).toThrow(expect.objectContaining({ code: 'ERR_ADDRESS_POOL_EXHAUSTED' }));
  });

  test('never expire, and DHCP gives them what they have', () => {
    const { address, mac } = pool.attach(0);
    expect(pool.offer(1e12, { mac })!.address).toBe(address);
    expect(pool.bind(1e12, { mac, clientId: '01' }, address, HOUR_MS)).toMatchObject({ state: 'attached' });
    expect(pool.bind(1e12, { mac }, ip('192.0.2.6'), HOUR_MS)).toBeUndefined();
    expect(pool.release({ mac }, address)).toBe(false);
  });
});

describe('DHCP leases', () => {
  const client = { mac: 0x020000000001 };
  const other = { mac: 0x020000000002 };

  test('an offer holds its address for a while, then it is free', () => {
    const { address } = pool.offer(0, client)!;
    expect(pool.offer(1, other)!.address).not.toBe(address);
    expect(pool.offer(OFFER_HOLD_MS + 1, { mac: 9 })!.address).toBe(address);
  });

  test('a wish is granted when it can be', () => {
    expect(pool.offer(0, client, ip('192.0.2.6'))!.address).toBe(ip('192.0.2.6'));
    expect(pool.offer(0, other, ip('192.0.2.6'))!.address).toBe(ip('192.0.2.2'));
  });

  test("a bound address is its client's until it expires; then it is remembered for it", () => {
    pool.bind(0, client, ip('192.0.2.4'), HOUR_MS);
    expect(pool.bind(1, other, ip('192.0.2.4'), HOUR_MS)).toBeUndefined();
    expect(pool.leases(HOUR_MS)).toEqual([]);
    expect(pool.offer(HOUR_MS, other)!.address).not.toBe(ip('192.0.2.4'));
    expect(pool.offer(HOUR_MS, client)!.address).toBe(ip('192.0.2.4'));
  });

  test('a released address is remembered until somebody needs it', () => {
    const { address } = pool.bind(0, client, ip('192.0.2.2'), HOUR_MS)!;
    expect(pool.release(other, address)).toBe(false);
    expect(pool.release(client, address)).toBe(true);
    expect(pool.find(client)).toMatchObject({ address, state: 'idle' });
    expect(pool.attach(0).address).toBe(ip('192.0.2.3'));
    for (let i = 0; i < 3; i++) pool.attach(0);
    expect(pool.attach(0).address).toBe(address);
    expect(pool.find(client)).toBeUndefined();
  });

  test('a declined address goes to nobody for a while', () => {
    const { address } = pool.bind(0, client, ip('192.0.2.2'), HOUR_MS)!;
    expect(pool.decline(0, other, address)).toBe(false);
    expect(pool.decline(0, client, address)).toBe(true);
    expect(pool.offer(0, client)!.address).toBe(ip('192.0.2.3'));
    expect(pool.offer(0, other, address)!.address).toBe(ip('192.0.2.4'));
    expect(pool.offer(DECLINE_HOLD_MS, { mac: 9 }, address)!.address).toBe(address);
  });

  test('DHCP may take half of the pool, whatever clients call themselves', () => {
    for (let mac = 1; mac < 100; mac++) pool.offer(0, { mac });
    expect(pool.dynamicCount).toBe(3);
    expect(pool.attach(0).state).toBe('attached');
    expect(pool.attach(0).state).toBe('attached');
  });

  test('a static lease goes to its client only', () => {
    pool.reserve(ip('192.0.2.2'), client, 'printer');
    expect(pool.offer(0, other)!.address).toBe(ip('192.0.2.3'));
    expect(pool.offer(0, { ...client, clientId: '0102' })!.address).toBe(ip('192.0.2.2'));
    expect(pool.bind(0, client, ip('192.0.2.4'), HOUR_MS)).toBeUndefined();
    expect(pool.bind(0, client, ip('192.0.2.2'), HOUR_MS)).toMatchObject({ name: 'printer', fixed: true });
    expect(() => pool.reserve(ip('192.0.2.2'), other)).toThrow(
      expect.objectContaining({ code: 'ERR_ADDRESS_IN_USE' }),
    );
    expect(pool.attach(0, { mac: client.mac }).address).toBe(ip('192.0.2.2'));
    pool.detach(ip('192.0.2.2'));
    expect(pool.find(client)).toMatchObject({ state: 'reserved', fixed: true });
  });

  test('a name belongs to its first holder while the lease lasts', () => {
    pool.bind(0, client, ip('192.0.2.2'), HOUR_MS, 'Web.example');
    pool.bind(0, other, ip('192.0.2.3'), 2 * HOUR_MS, 'web');
    expect(pool.addressOf(0, 'web')).toBe(ip('192.0.2.2'));
    expect(pool.nameOf(0, ip('192.0.2.2'))).toBe('web');
    expect(pool.nameOf(0, ip('192.0.2.3'))).toBeUndefined();
    expect(pool.addressOf(HOUR_MS, 'web')).toBeUndefined();
    pool.bind(HOUR_MS, other, ip('192.0.2.3'), HOUR_MS, 'web');
    expect(pool.addressOf(HOUR_MS, 'web')).toBe(ip('192.0.2.3'));
  });

  test('a client that moves to another address leaves the old one', () => {
    pool.bind(0, client, ip('192.0.2.2'), HOUR_MS);
    pool.bind(0, client, ip('192.0.2.3'), HOUR_MS);
    expect(pool.leases(0).map((lease) => formatIpv4(lease.address))).toEqual(['192.0.2.3']);
  });

  test('leases survive a restart for the time that they have left', () => {
    pool.bind(0, { ...client, clientId: 'ff01' }, ip('192.0.2.2'), HOUR_MS, 'web');
    const records = JSON.parse(JSON.stringify(pool.snapshot(600_000, 5_000_000)));
    const next = new LeasePool({ network: ip('192.0.2.0'), prefixLength: 29 });
    expect(next.restore(records, 0, 5_000_000)).toBe(1);
    expect(next.find({ ...client, clientId: 'ff01' })).toMatchObject({
      name: 'web',
      expiresAt: HOUR_MS - 600_000,
    });
    expect(new LeasePool({ network: ip('10.0.0.0'), prefixLength: 8 }).restore(records, 0, 5_000_000)).toBe(
      0,
    );
    expect(next.restore([{ address: 'x', mac: 'y', expiresAtMs: Number.NaN }], 0, 0)).toBe(0);
  });
});

test('docker makes a MAC from an address', () => {
  expect(formatMac(dockerMac(ip('172.17.0.2')))).toBe('02:42:ac:11:00:02');
});

test.each([
  ['Web-1', 'web-1'],
  ['pc.example.com', 'pc'],
  ['-x', undefined],
  ['a_b', undefined],
  ['', undefined],
  ['ä', undefined],
  ['x'.repeat(64), undefined],
])('the host name %s gives the label %s', (text, label) => {
  expect(hostLabel(text)).toBe(label);
});

test('whatever happens, no address has two holders and the table stays within the subnet', () => {
  const mac = fc.integer({ min: 1, max: 6 });
  const address = fc.integer({ min: 0, max: 9 }).map((n) => ip('192.0.2.0') + n);
  const step = fc.oneof(
    fc.record({ do: fc.constant('offer' as const), mac, address }),
    fc.record({ do: fc.constant('bind' as const), mac, address }),
    fc.record({ do: fc.constant('release' as const), mac, address }),
    fc.record({ do: fc.constant('decline' as const), mac, address }),
    fc.record({ do: fc.constant('attach' as const), mac, address }),
    fc.record({ do: fc.constant('detach' as const), mac, address }),
    fc.record({ do: fc.constant('wait' as const), mac, address }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const tried = new LeasePool({
        network: ip('192.0.2.0'),
        prefixLength: 29,
        excluded: [ip('192.0.2.1')],
      });
      let now = 0;
      for (const { do: what, mac: who, address: where } of steps) {
        const client = who % 2 ? { mac: who } : { mac: who, clientId: String(who % 3) };
        if (what === 'offer') tried.offer(now, client, where);
        else if (what === 'bind') tried.bind(now, client, where, 100_000, `n${who % 3}`);
        else if (what === 'release') tried.release(client, where);
        else if (what === 'decline') tried.decline(now, client, where);
        else if (what === 'detach') tried.detach(where);
        else if (what === 'wait') now += 70_000;
        else {
          try {
            tried.attach(now, { mac: 100 + who });
          } catch (error) {
            expect((error as { code: string }).code).toBe('ERR_ADDRESS_POOL_EXHAUSTED');
          }
        }
        const leases = tried.leases(now);
        expect(new Set(leases.map((lease) => lease.address)).size).toBe(leases.length);
        for (const lease of leases) {
          expect(lease.address).toBeGreaterThan(ip('192.0.2.1'));
          expect(lease.address).toBeLessThan(ip('192.0.2.7'));
          if (lease.name && lease.state !== 'offered') expect(tried.addressOf(now, lease.name)).toBeDefined();
        }
        expect(tried.dynamicCount).toBeLessThanOrEqual(3);
      }
    }),
    { numRuns: inputs(300) },
  );
});
