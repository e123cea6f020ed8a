import { describe, expect, it } from 'vitest';
import { effectiveConfig } from '../config.ts';
import { flowFilter } from './capture.ts';
import { addressOf, bytes, duration } from './page/format.js';
import { refusal } from './server.ts';

const get = (headers: Record<string, string>, method = 'GET'): ReturnType<typeof refusal> =>
  refusal({ method, headers }, 8765);

describe('the dashboard', () => {
  it.each([
    ['its own address', { host: '127.0.0.1:8765' }, undefined],
    ['its own name', { host: 'localhost:8765', 'sec-fetch-site': 'same-origin' }, undefined],
    ['a name that was rebound to the loopback', { host: 'evil.example:8765' }, 421],
    ['the right name with another port', { host: '127.0.0.1:80' }, 421],
    ['no name', {}, 421],
    ['another site', { host: '127.0.0.1:8765', 'sec-fetch-site': 'cross-site' }, 403],
    ['another site of this host', { host: '127.0.0.1:8765', 'sec-fetch-site': 'same-site' }, 403],
    ['a foreign origin', { host: '127.0.0.1:8765', origin: 'http://127.0.0.1:3000' }, 403],
  ])('takes or refuses a request by %s', (_, headers, status) => {
    expect(get(headers as Record<string, string>)?.status).toBe(status);
  });

  it('only reads', () => {
    expect(get({ host: '127.0.0.1:8765' }, 'POST')?.status).toBe(405);
  });

  it.each(['0.0.0.0:8765', 'example.org:80', '10.0.0.1:1', '127.0.0.1'])(
    'is not served at %s',
    (dashboard) => {
      expect(() => effectiveConfig({ dashboard }, {})).toThrow(/loopback/);
    },
  );
});

describe('a recording', () => {
  it.each([
    [
      'tcp',
      '172.17.0.2:4000',
      '1.2.3.4:443',
      'tcp and host 172.17.0.2 and port 4000 and host 1.2.3.4 and port 443',
    ],
    ['udp', '172.17.0.2:53', '*', 'udp and host 172.17.0.2 and port 53'],
    ['icmp', '172.17.0.2:7', '*', 'icmp and host 172.17.0.2'],
    ['tcp', '[fd00::2]:1', '[::1]:2', 'tcp and host fd00::2 and port 1 and host ::1 and port 2'],
  ])('of %s %s %s has its filter', (protocol, guest, target, filter) => {
    expect(flowFilter(protocol, guest, target)).toBe(filter);
  });

  it('takes no filter of anybody else', () => {
    expect(() => flowFilter('tcp or ip', '1.2.3.4:1', '*')).toThrow(/no protocol/);
    expect(() => flowFilter('tcp', '1.2.3.4:1 or port 2', '*')).toThrow(/no endpoint/);
  });
});

it('numbers are short, and wrong by less than they show', () => {
  expect([0, 999, 1000, 1_550_000, 12_345_678].map(bytes)).toEqual([
    '0 B',
    '999 B',
    '1.0 kB',
    '1.6 MB',
    '12 MB',
  ]);
  expect([undefined, 0, 0.00025, 0.25, 0.9996, 12, 1500, 200_000, 1e8].map(duration)).toEqual([
    ...['', '0 ms', '1 µs', '250 µs', '1.0 ms', '12 ms', '2 s', '3 min', '28 h'],
  ]);
  expect(['1.2.3.4:80', '[::1]:80'].map(addressOf)).toEqual(['1.2.3.4', '::1']);
});
