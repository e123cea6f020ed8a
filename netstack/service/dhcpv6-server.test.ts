import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { inputs } from '../../test/support/fuzz/inputs.ts';
import { formatAddress, get16, parseAddress, parseIpv4 } from '../wire/address.ts';
import {
  type Dhcpv6Message,
  type Dhcpv6Option,
  type Dhcpv6RelayMessage,
  encodeDhcpv6,
  encodeDhcpv6Relay,
  iaAddressOption,
  iaNaOption,
  DHCPV6_OPTION as O,
  parseDhcpv6,
  parseDhcpv6Relay,
  parseIaNa,
  DHCPV6_STATUS as S,
  DHCPV6_TYPE as T,
} from '../wire/dhcpv6.ts';
import { Dhcpv6Server } from './dhcpv6-server.ts';
import { LeasePool } from './lease-pool.ts';

const MAC = 0x0242ac110002;
const CLIENT: Dhcpv6Option = { code: O.clientId, data: Uint8Array.of(0, 3, 0, 1, 2, 0x42, 0xac, 0x11, 0, 2) };
const OURS: Dhcpv6Option = { code: O.serverId, data: Uint8Array.of(0, 3, 0, 1, 2, 0, 0, 0, 0, 1) };
const GATEWAY = parseAddress('fd00:1::1')!;

let pool: LeasePool;
let server: Dhcpv6Server;
beforeEach(() => {
  const network = parseIpv4('172.17.0.0')!;
  pool = new LeasePool({ network, prefixLength: 16, excluded: [network + 1] });
  server = new Dhcpv6Server({
    pool,
    mac: 0x020000000001,
    prefix: GATEWAY,
    prefixLength: 64,
    ipv4: { address: network, prefixLength: 16 },
    dnsServers: [GATEWAY],
    ntpServers: [GATEWAY],
    searchDomains: ['lan.test'],
    leaseMs: 1_000_000,
  });
});

const ia = (iaid = 1, ...addresses: string[]): Dhcpv6Option =>
  iaNaOption({
    iaid,
    t1Seconds: 0,
    t2Seconds: 0,
    options: addresses.map((text) => iaAddressOption(parseAddress(text)!, 0, 0)),
  });
const oro = (...codes: number[]): Dhcpv6Option => ({
  code: O.optionRequest,
  data: Uint8Array.from(codes.flatMap((code) => [0, code])),
});

function send(type: number, options: Dhcpv6Option[], multicast = true, mac = MAC): Dhcpv6Message | undefined {
  const bytes = encodeDhcpv6({ type, transactionId: 0xabcdef, options });
  const reply = server.receive(0, bytes, 0, bytes.length, mac, multicast);
  return reply && parseDhcpv6(reply, 0, reply.length);
}

const find = (message: Dhcpv6Message | undefined, code: number): Uint8Array | undefined =>
  message?.options.find((option) => option.code === code)?.data;
const status = (options: readonly Dhcpv6Option[] | undefined): number | undefined => {
  const data = options?.find(({ code }) => code === O.statusCode)?.data;
  return data && get16(data, 0);
};
/** Addresses of the first IA_NA with their valid lifetimes. */
function given(message: Dhcpv6Message | undefined): string[] {
  return (parseIaNa(find(message, O.iaNa)!)?.options ?? [])
    .filter(({ code }) => code === O.iaAddress)
    .map(({ data }) => `${formatAddress(data, 0)} ${get16(data, 20) * 65536 + get16(data, 22)}`);
}

describe('RFC 8415 18: a client', () => {
  test('18.3.1: is advertised an address with the host part of its IPv4 one, and bound to it by REQUEST', () => {
    const lease = pool.attach(0, { mac: MAC });
    expect(lease.address & 0xffff).toBe(2);
    const advertise = send(T.solicit, [CLIENT, ia()])!;
    expect(advertise).toMatchObject({ type: T.advertise, transactionId: 0xabcdef });
    expect(find(advertise, O.clientId)).toEqual(CLIENT.data);
    expect(find(advertise, O.serverId)).toEqual(OURS.data);
    expect(given(advertise)).toEqual(['fd00:1::2 1000']);
    expect(given(send(T.request, [CLIENT, OURS, ia(1, 'fd00:1::2')]))).toEqual(['fd00:1::2 1000']);
  });

  test('that nobody knows gets a free address, and keeps it by RENEW and REBIND', () => {
    expect(given(send(T.request, [CLIENT, OURS, ia()]))).toEqual(['fd00:1::2 1000']);
    expect(pool.leases(0)).toMatchObject([{ mac: MAC, state: 'bound' }]);
    expect(given(send(T.request, [CLIENT, OURS, ia()], true, 7))).toEqual(['fd00:1::3 1000']);
    expect(given(send(T.renew, [CLIENT, OURS, ia(1, 'fd00:1::2')]))).toEqual(['fd00:1::2 1000']);
    expect(given(send(T.rebind, [CLIENT, ia(1, 'fd00:1::2')]))).toEqual(['fd00:1::2 1000']);
  });

  test('21.14: with rapid commit is bound at once', () => {
    const reply = send(T.solicit, [CLIENT, ia(), { code: O.rapidCommit, data: new Uint8Array(0) }])!;
    expect(reply.type).toBe(T.reply);
    expect(find(reply, O.rapidCommit)).toBeDefined();
    expect(pool.leases(0)).toMatchObject([{ state: 'bound' }]);
  });

  test("18.3.4: that renews another's address is told to give it up", () => {
    expect(given(send(T.renew, [CLIENT, OURS, ia(1, 'fd00:1::99')]))).toEqual([
      'fd00:1::2 1000',
      'fd00:1::99 0',
    ]);
  });

  test('18.3.3: is told whether its addresses are of this network', () => {
    expect(status(send(T.confirm, [CLIENT, ia(1, 'fd00:1::77')])?.options)).toBe(S.success);
    expect(status(send(T.confirm, [CLIENT, ia(1, 'fd00:2::77')])?.options)).toBe(S.notOnLink);
    expect(send(T.confirm, [CLIENT, ia(1)])).toBeUndefined();
  });

  test("18.3.7: releases its address, and nobody else's", () => {
    send(T.request, [CLIENT, OURS, ia()]);
    const foreign = send(T.release, [CLIENT, OURS, ia(1, 'fd00:1::2')], true, 7)!;
    expect(status(parseIaNa(find(foreign, O.iaNa)!)!.options)).toBe(S.noBinding);
    expect(pool.leases(0)).toHaveLength(1);
    expect(status(send(T.release, [CLIENT, OURS, ia(1, 'fd00:1::2')])?.options)).toBe(S.success);
    expect(pool.leases(0)).toEqual([]);
  });

  test('18.3.8: that declines gets another address', () => {
    send(T.request, [CLIENT, OURS, ia()]);
    send(T.decline, [CLIENT, OURS, ia(1, 'fd00:1::2')]);
    expect(given(send(T.request, [CLIENT, OURS, ia()]))).toEqual(['fd00:1::3 1000']);
  });

  test('18.3.6: asks for parameters only, and gets those that it asks for', () => {
    const reply = send(T.informationRequest, [oro(O.dnsServers, O.domainList, O.ntpServer, O.preference)])!;
    expect(reply.type).toBe(T.reply);
    expect(find(reply, O.dnsServers)).toEqual(GATEWAY);
    expect([...find(reply, O.domainList)!]).toEqual([3, 0x6c, 0x61, 0x6e, 4, 0x74, 0x65, 0x73, 0x74, 0]);
    expect([...find(reply, O.ntpServer)!.subarray(0, 4)]).toEqual([0, 1, 0, 16]);
    expect(find(reply, O.informationRefreshTime)).toBeDefined();
    expect(pool.leases(0)).toEqual([]);
  });

  test('has one address: a second association and a prefix get a status', () => {
    const prefix: Dhcpv6Option = { code: O.iaPd, data: new Uint8Array(12) };
    const reply = send(T.request, [CLIENT, OURS, ia(1), ia(2), prefix])!;
    const second = reply.options.filter(({ code }) => code === O.iaNa)[1]!;
    expect(status(parseIaNa(second.data)!.options)).toBe(S.noAddrsAvail);
    expect(status(parseIaNa(find(reply, O.iaPd)!)!.options)).toBe(S.noPrefixAvail);
  });

  test('18.4: that sends to us alone is told to use multicast', () => {
    const reply = send(T.request, [CLIENT, OURS, ia()], false);
    expect(status(reply?.options)).toBe(S.useMulticast);
    expect(find(reply, O.iaNa)).toBeUndefined();
  });
});

describe('RFC 8415 16: messages that are not answered', () => {
  const other: Dhcpv6Option = { code: O.serverId, data: Uint8Array.of(0, 3, 0, 1, 9, 9, 9, 9, 9, 9) };
  test.each([
    ['a SOLICIT without client', T.solicit, [ia()]],
    ['a SOLICIT to a server', T.solicit, [CLIENT, OURS, ia()]],
    ['a REQUEST to another server', T.request, [CLIENT, other, ia()]],
    ['a REQUEST to no server', T.request, [CLIENT, ia()]],
    ['a REBIND to a server', T.rebind, [CLIENT, OURS, ia()]],
    ['an INFORMATION-REQUEST for an address', T.informationRequest, [CLIENT, ia()]],
    ['an INFORMATION-REQUEST to another server', T.informationRequest, [other]],
    ["a server's message", T.advertise, [CLIENT, OURS]],
    ['an empty client identifier', T.solicit, [{ code: O.clientId, data: new Uint8Array(0) }, ia()]],
  ])('%s', (_, type, options) => {
    expect(send(type, options)).toBeUndefined();
    expect(pool.leases(0)).toEqual([]);
  });
});

describe('what relays forward (RFC 8415 section 19)', () => {
  const onLink = parseAddress('fd00:1::fe')!;
  const peer = parseAddress('fe80::15')!;

  function relayed(
    layers: { link: Uint8Array; interfaceId?: string }[],
    options: Dhcpv6Option[],
    relays = true,
  ): Dhcpv6RelayMessage | undefined {
    const parts = { pool, mac: 0x020000000001, prefix: GATEWAY, prefixLength: 64, relays };
    const ipv4 = { address: parseIpv4('172.17.0.0')!, prefixLength: 16 };
    const lists = { dnsServers: [GATEWAY], ntpServers: [], searchDomains: [] };
    const listening = new Dhcpv6Server({ ...parts, ipv4, ...lists, leaseMs: 1_000_000 });
    let message = encodeDhcpv6({ type: T.solicit, transactionId: 7, options });
    for (const [hops, { link, interfaceId }] of layers.entries())
      message = encodeDhcpv6Relay({
        type: T.relayForward,
        hops,
        linkAddress: link,
        peerAddress: peer,
        options: [
          ...(interfaceId === undefined
            ? []
            : [{ code: O.interfaceId, data: new TextEncoder().encode(interfaceId) }]),
          { code: O.relayMessage, data: message },
        ],
      });
    const reply = listening.receive(0, message, 0, message.length, MAC, false);
    return reply && parseDhcpv6Relay(reply, 0, reply.length);
  }
  const inside = (message: Dhcpv6RelayMessage | undefined): Uint8Array =>
    message!.options.find(({ code }) => code === O.relayMessage)!.data;

  test('is answered through it, with the interface that it named', () => {
    const reply = relayed([{ link: onLink, interfaceId: 'port 7' }], [CLIENT, ia()]);
    expect(reply).toMatchObject({ type: T.relayReply, hops: 0, linkAddress: onLink, peerAddress: peer });
    expect(reply!.options.find(({ code }) => code === O.interfaceId)?.data).toEqual(
      new TextEncoder().encode('port 7'),
    );
    const answer = parseDhcpv6(inside(reply), 0, inside(reply).length);
    expect(answer).toMatchObject({ type: T.advertise, transactionId: 7 });
    expect(find(answer, O.iaNa)).toBeDefined();
  });

  test('through two relays goes back through both, and the nearest tells the link', () => {
    const layers = [
      { link: onLink, interfaceId: 'a' },
      { link: new Uint8Array(16), interfaceId: 'b' },
    ];
    const outer = relayed(layers, [CLIENT, ia()]);
    expect(outer).toMatchObject({ type: T.relayReply, hops: 1 });
    const inner = parseDhcpv6Relay(inside(outer), 0, inside(outer).length);
    expect(inner).toMatchObject({ type: T.relayReply, hops: 0, linkAddress: onLink });
    expect(parseDhcpv6(inside(inner), 0, inside(inner).length)?.type).toBe(T.advertise);
  });

  test('is not answered for another link, by way of too many, without a message, or where relays are not taken', () => {
    expect(relayed([{ link: parseAddress('fd00:2::1')! }], [CLIENT, ia()])).toBeUndefined();
    expect(relayed(new Array(40).fill({ link: onLink }), [CLIENT, ia()])).toBeUndefined();
    expect(relayed([{ link: onLink }], [CLIENT, ia()], false)).toBeUndefined();
    const bytes = encodeDhcpv6Relay({
      type: T.relayForward,
      hops: 0,
      linkAddress: onLink,
      peerAddress: peer,
      options: [],
    });
    expect(server.receive(0, bytes, 0, bytes.length, MAC, false)).toBeUndefined();
    expect(pool.leases(0)).toEqual([]);
  });
});

test('no message makes the server throw, and every answer can be read', () => {
  const option = fc.record({
    code: fc.oneof(fc.constantFrom(1, 2, 3, 4, 5, 6, 14, 25), fc.nat(200)),
    data: fc.uint8Array({ maxLength: 40 }),
  });
  fc.assert(
    fc.property(fc.nat(13), fc.array(option, { maxLength: 6 }), fc.boolean(), (type, options, known) => {
      const reply = send(type, known ? [CLIENT, ...options] : options);
      if (reply) expect([T.advertise, T.reply]).toContain(reply.type);
    }),
    { numRuns: inputs(1000) },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      server.receive(0, bytes, 0, bytes.length, MAC, true);
    }),
  );
});
