import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  formatAddress,
  formatEndpoint,
  formatIpv4,
  formatIpv6,
  formatMac,
  getMac,
  isGroupMac,
  isLinkLocalIpv6,
  isLoopbackIpv6,
  isMapped,
  mapped,
  netmask,
  parseAddress,
  parseIpv4,
  parseIpv6,
  parseMac,
  putMac,
  samePrefix,
} from './address.ts';

describe('IPv4 text', () => {
  it.each([
    ['0.0.0.0', 0],
    ['10.0.2.15', 0x0a00020f],
    ['255.255.255.255', 0xffffffff],
  ])('%s is %d', (text, address) => {
    expect(parseIpv4(text)).toBe(address);
    expect(formatIpv4(address)).toBe(text);
  });

  it.each(['', '1.2.3', '1.2.3.4.5', '256.0.0.1', '01.2.3.4', '1.2.3.x', ' 1.2.3.4', '1..2.3', '-1.2.3.4'])(
    'refuses "%s"',
    (text) => expect(parseIpv4(text)).toBeUndefined(),
  );
});

describe('IPv6 text (RFC 4291 section 2.2, RFC 5952)', () => {
  it.each([
    ['2001:0db8:0000:0000:0000:0000:0002:0001', '2001:db8::2:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['::', '::'],
    ['::1', '::1'],
    ['fe80::', 'fe80::'],
    ['FE80::ABCD', 'fe80::abcd'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
  ])('%s is written %s', (text, canonical) => {
    expect(formatIpv6(parseIpv6(text)!, 0)).toBe(canonical);
  });

  it.each([
    '',
    ':',
    ':::',
    '1::2::3',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7::8',
    'g::',
    '12345::',
    '::1.2.3',
    '1.2.3.4::',
    'fe80::1%eth0',
  ])('refuses "%s"', (text) => expect(parseIpv6(text)).toBeUndefined());

  it('reads what it writes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), (bytes) => {
        expect(parseAddress(formatAddress(bytes, 0))).toEqual(bytes);
      }),
    );
  });
});

describe('MAC addresses', () => {
  it('are numbers of 48 bits', () => {
    const mac = parseMac('02:42:AC-11-00:02'.replaceAll('-', ':'))!;
    expect(mac).toBe(0x0242ac110002);
    expect(formatMac(mac)).toBe('02:42:ac:11:00:02');
    const buf = new Uint8Array(6);
    putMac(buf, 0, mac);
    expect([...buf]).toEqual([2, 0x42, 0xac, 0x11, 0, 2]);
    expect(getMac(buf, 0)).toBe(mac);
  });

  it.each(['', '02:42:ac:11:00', '02:42:ac:11:00:02:03', '0242ac110002', 'zz:42:ac:11:00:02'])(
    'refuses "%s"',
    (text) => expect(parseMac(text)).toBeUndefined(),
  );

  it('of groups have the lowest bit of the first byte set', () => {
    expect(isGroupMac(0x01005e000001)).toBe(true);
    expect(isGroupMac(0xffffffffffff)).toBe(true);
    expect(isGroupMac(0x020000000001)).toBe(false);
    expect(isGroupMac(0xfe0000000001)).toBe(false);
  });
});

describe('classification', () => {
  it('knows the mapped form', () => {
    expect(isMapped(mapped(0x0a000001), 0)).toBe(true);
    expect(formatAddress(mapped(0x0a000001), 0)).toBe('10.0.0.1');
    expect(isMapped(parseIpv6('::fffe:1.2.3.4')!, 0)).toBe(false);
    expect(isMapped(parseIpv6('1::ffff:1.2.3.4')!, 0)).toBe(false);
  });

  it('knows link-local and loopback addresses', () => {
    expect(isLinkLocalIpv6(parseIpv6('febf::1')!, 0)).toBe(true);
    expect(isLinkLocalIpv6(parseIpv6('fec0::1')!, 0)).toBe(false);
    expect(isLoopbackIpv6(parseIpv6('::1')!, 0)).toBe(true);
    expect(isLoopbackIpv6(parseIpv6('::2')!, 0)).toBe(false);
  });

  it('compares prefixes bit by bit', () => {
    const a = parseIpv6('2001:db8:8000::')!;
    const b = parseIpv6('2001:db8:ffff::')!;
    expect(samePrefix(a, 0, b, 0, 33)).toBe(true);
    expect(samePrefix(a, 0, b, 0, 34)).toBe(false);
    expect(samePrefix(a, 0, b, 0, 0)).toBe(true);
  });

  it('makes netmasks', () => {
    expect([0, 1, 24, 32].map(netmask)).toEqual([0, 0x80000000, 0xffffff00, 0xffffffff]);
  });
});

it('brackets IPv6 in endpoints', () => {
  expect(formatEndpoint(mapped(0x7f000001), 0, 80)).toBe('127.0.0.1:80');
  expect(formatEndpoint(parseIpv6('::1')!, 0, 80)).toBe('[::1]:80');
});
