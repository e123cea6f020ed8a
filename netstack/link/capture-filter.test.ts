import { describe, expect, test } from 'vitest';
import { parseIpv4, parseMac, put16, put32, putMac } from '../wire/address.ts';
import { compileFilter } from './capture-filter.ts';

function frame(options: {
  etherType?: number;
  protocol?: number;
  ports?: [number, number];
  fragment?: number;
}) {
  const { etherType = 0x0800, protocol = 6, ports = [40000, 443], fragment = 0 } = options;
  const bytes = new Uint8Array(14 + 20 + 20);
  putMac(bytes, 0, parseMac('02:42:ac:11:00:01')!);
  putMac(bytes, 6, parseMac('02:42:ac:11:00:02')!);
  put16(bytes, 12, etherType);
  bytes[14] = 0x45;
  put16(bytes, 20, fragment);
  bytes[23] = protocol;
  put32(bytes, 26, parseIpv4('172.17.0.2')!);
  put32(bytes, 30, parseIpv4('8.8.4.4')!);
  put16(bytes, 34, ports[0]);
  put16(bytes, 36, ports[1]);
  return bytes;
}

const TCP = frame({});
const DNS = frame({ protocol: 17, ports: [5353, 53] });
const PING = frame({ protocol: 1 });
const ARP = frame({ etherType: 0x0806 });
const LATER_FRAGMENT = frame({ protocol: 17, ports: [5353, 53], fragment: 100 });

describe('a capture filter', () => {
  test.each<[string, Uint8Array[], Uint8Array[]]>([
    ['', [TCP, DNS, PING, ARP], []],
    ['tcp', [TCP], [DNS, PING, ARP]],
    ['udp or icmp', [DNS, PING], [TCP, ARP]],
    ['not arp', [TCP, DNS, PING], [ARP]],
    ['port 443', [TCP], [DNS, PING]],
    ['tcp port 443', [TCP], [DNS]],
    ['src port 443', [], [TCP]],
    ['udp dst port 53', [DNS], [TCP, LATER_FRAGMENT]],
    ['host 172.17.0.2', [TCP, DNS, PING], [ARP]],
    ['dst host 172.17.0.2', [], [TCP]],
    ['net 8.8.0.0/16', [TCP], []],
    ['src net 8.8.0.0/16', [], [TCP]],
    ['net 8.8.0.0/16 and not (tcp or udp)', [PING], [TCP, DNS]],
    ['tcp && !port 443 || icmp', [PING], [TCP]],
    ['ether host 02:42:ac:11:00:02', [TCP, ARP], []],
    ['ether host 02:42:ac:11:00:03', [], [TCP, ARP]],
    ['ip6', [], [TCP, ARP]],
    ['host fd00::1', [], [TCP]],
  ])('"%s"', (expression, kept, left) => {
    const filter = compileFilter(expression);
    for (const bytes of kept) expect(filter(bytes, 0, bytes.length)).toBe(true);
    for (const bytes of left) expect(filter(bytes, 0, bytes.length)).toBe(false);
  });

  test.each([
    'tcp and',
    'port http',
    'host nowhere',
    'net 10/8',
    '(tcp',
    'tcp )',
    'ether 1',
    'color blue',
    'port 70000',
  ])('"%s" is refused with what is wrong', (expression) => {
    expect(() => compileFilter(expression)).toThrow(
      expect.objectContaining({
        code: 'ERR_FILTER_INVALID',
        message: expect.stringContaining('cannot be read'),
      }),
    );
  });

  test('is short, since it is functions within functions', () => {
    for (const [piece, last] of [
      ['(', ''],
      ['not ', 'arp'],
      ['arp and ', 'arp'],
    ] as const) {
      const filter = compileFilter(piece.repeat(100) + last + (piece === '(' ? `arp${')'.repeat(100)}` : ''));
      expect(() => filter(TCP, 0, TCP.length)).not.toThrow();
      expect(() => compileFilter(piece.repeat(10_000) + last)).toThrow(/more than 512 words/);
    }
  });

  test('is false for a runt', () => {
    expect(compileFilter('not arp')(TCP, 0, 10)).toBe(false);
  });
});
