import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { nullLog } from '#common/log';
import { inputs } from '../../test/support/fuzz/inputs.ts';
import { formatIpv4, parseIpv4, putMac } from '../wire/address.ts';
import {
  BOOT_REQUEST,
  DHCP_FLAG_BROADCAST,
  type DhcpMessage,
  encodeDhcp,
  DHCP_OPTION as O,
  parseDhcp,
  readText,
  readUint32,
  DHCP_TYPE as T,
  textOption,
  uint16Option,
  uint32Option,
} from '../wire/dhcp.ts';
import { type DhcpReply, DhcpServer, type DhcpServerOptions } from './dhcp-server.ts';
import { DECLINE_HOLD_MS, LeasePool } from './lease-pool.ts';

const ip = (text: string): number => parseIpv4(text)!;
const SERVER = ip('192.0.2.1');
const LEASE_MS = 600_000;

function macBytes(mac: number): Uint8Array {
  const bytes = new Uint8Array(6);
  putMac(bytes, 0, mac);
  return bytes;
}

interface Sent {
  reply: DhcpReply;
  message: DhcpMessage;
  type: number;
  /** yiaddr */
  address: string;
  option(code: number): number[] | undefined;
}

let pool: LeasePool;
let server: DhcpServer;

function start(more: Partial<DhcpServerOptions> = {}): void {
  pool = new LeasePool({ network: ip('192.0.2.0'), prefixLength: 24, excluded: [SERVER] });
  server = new DhcpServer({
    pool,
    serverAddress: SERVER,
    prefixLength: 24,
    leaseMs: LEASE_MS,
    routers: [SERVER],
    dnsServers: [SERVER],
    ntpServers: [SERVER],
    domainName: 'lan.test',
    searchDomains: ['lan.test', 'b.test'],
    mtuBytes: 1500,
    relays: true,
    log: nullLog,
    ...more,
  });
}
beforeEach(() => start());

const MAC = 0x0242ac110002;

/** Sends a client's message; the options are given by code. */
function send(
  type: number,
  options: Record<number, Uint8Array> = {},
  fields: Partial<DhcpMessage> = {},
  now = 0,
  mac = MAC,
): Sent | undefined {
  const bytes = encodeDhcp({
    op: BOOT_REQUEST,
    hardwareType: 1,
    hops: 0,
    transactionId: 0xabcd,
    seconds: 0,
    flags: 0,
    clientAddress: 0,
    yourAddress: 0,
    nextServer: 0,
    relayAddress: 0,
    hardwareAddress: macBytes(mac),
    ...fields,
    options: new Map([
      [O.messageType as number, Uint8Array.of(type)],
      ...Object.entries(options).map(([code, value]) => [Number(code), value] as const),
    ]),
  });
  const reply = server.receive(now, bytes, 0, bytes.length, macBytes(mac));
  const message = reply && parseDhcp(reply.bytes, 0, reply.bytes.length);
  if (!reply || !message) return undefined;
  return {
    reply,
    message,
    type: message.options.get(O.messageType)![0]!,
    address: formatIpv4(message.yourAddress),
    option: (code) => {
      const value = message.options.get(code);
      return value && [...value];
    },
  };
}

/** DISCOVER and REQUEST; the address. */
function join(now = 0, mac = MAC, options: Record<number, Uint8Array> = {}): number {
  const offer = send(T.discover, options, {}, now, mac)!;
  const ack = send(
    T.request,
    {
      ...options,
      [O.serverId]: uint32Option(SERVER),
      [O.requestedAddress]: uint32Option(offer.message.yourAddress),
    },
    {},
    now,
    mac,
  )!;
  expect(ack.type).toBe(T.ack);
  return ack.message.yourAddress;
}

describe('RFC 2131 3.1: getting an address', () => {
  test('DISCOVER is offered an address, REQUEST binds it', () => {
    const offer = send(T.discover)!;
    expect(offer).toMatchObject({ type: T.offer, address: '192.0.2.2' });
    expect(offer.message).toMatchObject({ op: 2, transactionId: 0xabcd });
    expect(offer.option(O.serverId)).toEqual([192, 0, 2, 1]);
    const ack = send(T.request, {
      [O.serverId]: uint32Option(SERVER),
      [O.requestedAddress]: uint32Option(ip('192.0.2.2')),
    })!;
    expect(ack).toMatchObject({ type: T.ack, address: '192.0.2.2' });
    expect(pool.leases(0)).toMatchObject([{ mac: MAC, state: 'bound', expiresAt: LEASE_MS }]);
  });

  test('4.4.5: T1 is half of the lease and T2 seven eighths', () => {
    const ack = send(T.discover)!;
    expect(readUint32(ack.message.options.get(O.leaseTime))).toBe(600);
    expect(readUint32(ack.message.options.get(O.renewalTime))).toBe(300);
    expect(readUint32(ack.message.options.get(O.rebindingTime))).toBe(525);
  });

  test("4.3.1: a client's wish is heard, and so is its past", () => {
    expect(send(T.discover, { [O.requestedAddress]: uint32Option(ip('192.0.2.77')) })!.address).toBe(
      '192.0.2.77',
    );
    const address = join(0, 5);
    expect(formatIpv4(address)).toBe('192.0.2.2');
    join(LEASE_MS * 2, 6);
    expect(join(LEASE_MS * 3, 5)).toBe(address);
  });

  test('4.3.2: a REQUEST for another server frees our offer', () => {
    const { message } = send(T.discover)!;
    expect(
      send(T.request, {
        [O.serverId]: uint32Option(ip('192.0.2.9')),
        [O.requestedAddress]: uint32Option(message.yourAddress),
      }),
    ).toBeUndefined();
    expect(pool.leases(0)).toEqual([]);
  });

  test('a REQUEST for what was offered to somebody else is refused', () => {
    const offer = send(T.discover)!;
    const nak = send(
      T.request,
      { [O.serverId]: uint32Option(SERVER), [O.requestedAddress]: uint32Option(offer.message.yourAddress) },
      {},
      0,
      99,
    )!;
    expect(nak).toMatchObject({ type: T.nak, address: '0.0.0.0' });
  });

  test('a client with an identifier is known by it, not by its MAC (RFC 2131 2); it comes back (RFC 6842)', () => {
    const id = Uint8Array.of(255, 1, 2, 3);
    const address = join(0, 5, { [O.clientId]: id });
    const offer = send(T.discover, { [O.clientId]: id }, {}, 0, 6)!;
    expect(offer.message.yourAddress).toBe(address);
    expect(offer.option(O.clientId)).toEqual([...id]);
    expect(send(T.discover, {}, {}, 0, 5)!.message.yourAddress).not.toBe(address);
  });

  test('RFC 4039: with rapid commit the answer to DISCOVER binds', () => {
    const ack = send(T.discover, { [O.rapidCommit]: new Uint8Array(0) })!;
    expect(ack.type).toBe(T.ack);
    expect(ack.option(O.rapidCommit)).toEqual([]);
    expect(pool.leases(0)).toMatchObject([{ state: 'bound' }]);
  });

  test('an attached guest is given the address that it has', () => {
    const lease = pool.attach(0, { wanted: ip('192.0.2.50') });
    expect(send(T.discover, {}, {}, 0, lease.mac)!.address).toBe('192.0.2.50');
    expect(join(0, lease.mac)).toBe(lease.address);
  });
});

describe('RFC 2131 4.3.2: a client that has an address', () => {
  test('INIT-REBOOT: keeps its address, and one that it cannot have is refused', () => {
    const address = join();
    expect(send(T.request, { [O.requestedAddress]: uint32Option(address) })).toMatchObject({ type: T.ack });
    const wrong = send(T.request, { [O.requestedAddress]: uint32Option(ip('198.51.100.7')) })!;
    expect(wrong.type).toBe(T.nak);
    expect(wrong.reply).toMatchObject({ address: 0xffffffff, port: 68, mac: undefined });
    expect(wrong.option(O.leaseTime)).toBeUndefined();
    expect(readText(wrong.message.options.get(O.message))).toMatch(/address/);
  });

  test('RENEWING and REBINDING: the lease begins anew, and the answer goes to the address', () => {
    const address = join();
    const ack = send(T.request, {}, { clientAddress: address }, LEASE_MS / 2)!;
    expect(ack.reply).toMatchObject({ address, port: 68, mac: undefined });
    expect(ack.message.clientAddress).toBe(address);
    expect(pool.leases(LEASE_MS)).toMatchObject([{ expiresAt: LEASE_MS * 1.5 }]);
  });

  test('a server that has forgotten the client lets it keep a free address', () => {
    expect(send(T.request, {}, { clientAddress: ip('192.0.2.40') })).toMatchObject({
      type: T.ack,
      address: '192.0.2.40',
    });
  });

  test('4.3.3: DECLINE puts the address aside', () => {
    const address = join();
    expect(
      send(T.decline, { [O.serverId]: uint32Option(SERVER), [O.requestedAddress]: uint32Option(address) }),
    ).toBeUndefined();
    expect(send(T.discover)!.message.yourAddress).not.toBe(address);
    expect(
      send(T.discover, { [O.requestedAddress]: uint32Option(address) }, {}, 0, 7)!.message.yourAddress,
    ).not.toBe(address);
    expect(
      send(T.discover, { [O.requestedAddress]: uint32Option(address) }, {}, DECLINE_HOLD_MS, 8)!.message
        .yourAddress,
    ).toBe(address);
  });

  test('4.3.4: RELEASE frees the address of its client, and of nobody else', () => {
    const address = join();
    send(T.release, { [O.serverId]: uint32Option(SERVER) }, { clientAddress: address }, 0, 99);
    expect(pool.leases(0)).toHaveLength(1);
    send(T.release, { [O.serverId]: uint32Option(SERVER) }, { clientAddress: address });
    expect(pool.leases(0)).toEqual([]);
  });

  test('4.3.5: INFORM is told the parameters, without address and lease', () => {
    const ack = send(
      T.inform,
      { [O.parameterList]: Uint8Array.of(6) },
      { clientAddress: ip('192.0.2.200') },
    )!;
    expect(ack).toMatchObject({ type: T.ack, address: '0.0.0.0' });
    expect(ack.option(O.dnsServers)).toEqual([192, 0, 2, 1]);
    expect(ack.option(O.leaseTime)).toBeUndefined();
    expect(ack.reply.address).toBe(ip('192.0.2.200'));
    expect(pool.leases(0)).toEqual([]);
  });
});

describe('RFC 2131 4.1: where the answer goes', () => {
  test('to the MAC without ARP, for a client that takes unicast', () => {
    const { reply } = send(T.discover)!;
    expect(reply).toMatchObject({ address: ip('192.0.2.2'), port: 68, mac: macBytes(MAC) });
  });

  test('to everybody, for one that does not', () => {
    const { reply } = send(T.discover, {}, { flags: DHCP_FLAG_BROADCAST })!;
    expect(reply).toMatchObject({ address: 0xffffffff, mac: undefined });
  });

  test('to the relay, with what it had said of itself (RFC 3046 2.2)', () => {
    const relay = ip('192.0.2.254');
    const info = Uint8Array.of(1, 2, 9, 9);
    const offer = send(T.discover, { [O.relayAgent]: info }, { relayAddress: relay, hops: 1 })!;
    expect(offer.reply).toMatchObject({ address: relay, port: 67 });
    expect(offer.option(O.relayAgent)).toEqual([...info]);
    expect([...offer.message.options.keys()].at(-1)).toBe(O.relayAgent);
  });

  test('4.3.2: a relay must broadcast a NAK', () => {
    const nak = send(
      T.request,
      { [O.requestedAddress]: uint32Option(ip('10.0.0.1')) },
      { relayAddress: ip('192.0.2.254') },
    )!;
    expect(nak.message.flags & DHCP_FLAG_BROADCAST).not.toBe(0);
  });

  test('nowhere, for a relay of another network or where there are none', () => {
    expect(send(T.discover, {}, { relayAddress: ip('10.0.0.1') })).toBeUndefined();
    start({ relays: false });
    expect(send(T.discover, {}, { relayAddress: ip('192.0.2.254') })).toBeUndefined();
  });
});

describe('options', () => {
  test('are those that the client asks for, in its order', () => {
    const asked = [42, 119, 28, 6, 3, 1, 15, 26, 252, 108];
    const offer = send(T.discover, { [O.parameterList]: Uint8Array.from(asked) })!;
    const codes = [...offer.message.options.keys()].filter((code) => asked.includes(code));
    expect(codes).toEqual([42, 119, 28, 6, 3, 1, 15, 26]);
    expect(offer.option(O.subnetMask)).toEqual([255, 255, 255, 0]);
    expect(offer.option(O.broadcast)).toEqual([192, 0, 2, 255]);
    expect(offer.option(O.ntpServers)).toEqual([192, 0, 2, 1]);
    expect(offer.option(O.mtu)).toEqual([5, 220]);
    expect(readText(offer.message.options.get(O.domainName))).toBe('lan.test');
  });

  test('are the usual ones for a client that asks for nothing', () => {
    expect([...send(T.discover)!.message.options.keys()]).toEqual([53, 54, 51, 58, 59, 1, 3, 6, 15, 26, 28]);
  });

  test('108, 121 and 252 are there when they are configured and asked for', () => {
    start({
      ipv6OnlyWaitMs: 1_800_000,
      routes: [{ network: ip('10.0.0.0'), prefixLength: 8, router: ip('192.0.2.9') }],
      proxyAutoConfigUrl: 'http://wpad/wpad.dat',
    });
    const offer = send(T.discover, { [O.parameterList]: Uint8Array.of(108, 121, 252) })!;
    expect(offer.option(108)).toEqual([0, 0, 7, 8]);
    // RFC 3442 page 5: the default route too, since clients that know 121 ignore 3.
    expect(offer.option(121)).toEqual([8, 10, 192, 0, 2, 9, 0, 192, 0, 2, 1]);
    expect(readText(offer.message.options.get(252))).toBe('http://wpad/wpad.dat');
    expect(send(T.discover)!.option(108)).toBeUndefined();
  });

  test("a client's name is kept with its lease, and given back where it is asked for", () => {
    const address = join(0, MAC, { [O.hostName]: textOption('My-PC') });
    expect(pool.nameOf(0, address)).toBe('my-pc');
    const ack = send(T.request, { [O.parameterList]: Uint8Array.of(12) }, { clientAddress: address })!;
    expect(readText(ack.message.options.get(O.hostName))).toBe('my-pc');
  });

  test('RFC 4702: a client that sends its full name is told the one it has got', () => {
    const fqdn = Uint8Array.from([1, 0, 0, ...textOption('pc.old.test')]);
    const offer = send(T.discover, { [O.clientFqdn]: fqdn })!;
    const ack = send(T.request, {
      [O.clientFqdn]: fqdn,
      [O.serverId]: uint32Option(SERVER),
      [O.requestedAddress]: uint32Option(offer.message.yourAddress),
    })!;
    expect(ack.option(O.clientFqdn)).toEqual([1, 255, 255, ...textOption('pc.lan.test')]);
    expect(pool.addressOf(0, 'pc')).toBe(ack.message.yourAddress);
  });

  test('RFC 2132 9.10: a message is no longer than the client takes', () => {
    start({ searchDomains: Array.from({ length: 40 }, (_, i) => `domain-number-${i}.example`) });
    const long = { [O.parameterList]: Uint8Array.of(1, 119, 3) };
    const offer = send(T.discover, long)!;
    expect(offer.reply.bytes.length).toBeLessThanOrEqual(548);
    expect(offer.option(119)).toBeUndefined();
    expect(offer.option(3)).toBeDefined();
    const large = send(T.discover, { ...long, [O.maxMessageSize]: uint16Option(1500) })!;
    expect(large.option(119)!.length).toBeGreaterThan(255);
  });
});

describe('hostile clients', () => {
  test('a guest speaks for itself only', () => {
    const address = join();
    const bytes = encodeDhcp({
      op: BOOT_REQUEST,
      hardwareType: 1,
      hops: 0,
      transactionId: 1,
      seconds: 0,
      flags: 0,
      clientAddress: address,
      yourAddress: 0,
      nextServer: 0,
      relayAddress: 0,
      hardwareAddress: macBytes(MAC),
      options: new Map([[O.messageType as number, Uint8Array.of(T.release)]]),
    });
    expect(server.receive(0, bytes, 0, bytes.length, macBytes(66))).toBeUndefined();
    expect(pool.leases(0)).toHaveLength(1);
    expect(server.counters.dhcp_spoofed).toBe(1);
  });

  test('a guest that invents clients exhausts its share; an attached guest is still served', () => {
    pool = new LeasePool({ network: ip('192.0.2.0'), prefixLength: 28, excluded: [SERVER] });
    server = new DhcpServer({ pool, serverAddress: SERVER, prefixLength: 28, relays: false, log: nullLog });
    const container = pool.attach(0);
    let offers = 0;
    for (let mac = 1; mac < 50; mac++) if (send(T.discover, {}, {}, 0, mac)) offers++;
    expect(offers).toBe(7);
    expect(server.counters.dhcp_pool_exhausted).toBe(42);
    expect(join(0, container.mac)).toBe(container.address);
  });

  test('no message makes the server throw, and every reply is sound', () => {
    const option = fc.tuple(
      fc.oneof(fc.constantFrom(12, 50, 54, 55, 57, 61, 80, 81, 82), fc.integer({ min: 1, max: 254 })),
      fc.uint8Array({ maxLength: 40 }),
    );
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 9 }),
        fc.array(option, { maxLength: 6 }),
        fc.nat(0xffffffff),
        fc.nat(0xffff),
        fc.nat(3),
        (type, options, clientAddress, flags, mac) => {
          const sent = send(type, Object.fromEntries(options), { clientAddress, flags }, 0, mac + 1);
          if (!sent) return;
          expect([T.offer, T.ack, T.nak]).toContain(sent.type);
          expect(sent.reply.bytes.length).toBeLessThanOrEqual(1472);
          if (sent.type === T.offer) expect(pool.contains(sent.message.yourAddress)).toBe(true);
        },
      ),
      { numRuns: inputs(1000) },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
        server.receive(0, bytes, 0, bytes.length);
      }),
    );
  });
});
