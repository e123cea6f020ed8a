import type { IncomingHttpHeaders } from 'node:http';
import { hostname } from 'node:os';
import { describe, expect, it } from 'vitest';
import { refusePages } from './browsers.ts';

interface Peer {
  remoteAddress?: string;
  authorized?: boolean;
}

const judge = (headers: IncomingHttpHeaders, socket: Peer = { remoteAddress: '127.0.0.1' }): void =>
  refusePages({ headers, socket } as never);

describe('a request over TCP', () => {
  it.each([
    { host: '127.0.0.1:2375' },
    { host: '[::1]:2375' },
    { host: 'localhost:2375' },
    { host: `${hostname().toUpperCase()}.:2375` },
    { host: 'host.docker.internal:2375' },
    {},
    { host: 'localhost:2375', origin: 'http://localhost:2375', 'sec-fetch-site': 'same-origin' },
    { host: '127.0.0.1', 'sec-fetch-site': 'none' },
  ])('with %j is answered', (headers) => {
    expect(() => judge(headers)).not.toThrow();
  });

  it.each([
    { host: 'rebound.example:2375' },
    { host: '127.0.0.1.rebound.example' },
    { host: 'localhost.rebound.example:2375' },
    { host: '[rebound.example]:2375' },
    { host: 'localhost@rebound.example' },
    { host: 'rebound.example:2375', origin: 'http://rebound.example:2375' },
    { host: '127.0.0.1:2375', origin: 'https://page.example' },
    { host: '127.0.0.1:2375', origin: 'null' },
    { host: '127.0.0.1:2375', origin: 'http://127.0.0.1:80' },
    { host: '127.0.0.1:2375', 'sec-fetch-site': 'cross-site' },
    { host: '127.0.0.1:2375', 'sec-fetch-site': 'same-site' },
  ])('with %j could be a web page, and is refused', (headers) => {
    expect(() => judge(headers)).toThrow(/refused/);
  });

  it('is not looked at on a unix socket, or with a certificate', () => {
    const headers = { host: 'rebound.example', origin: 'http://rebound.example' };
    expect(() => judge(headers, {})).not.toThrow();
    expect(() => judge(headers, { remoteAddress: '10.0.0.1', authorized: true })).not.toThrow();
    expect(() => judge(headers, { remoteAddress: '10.0.0.1', authorized: false })).toThrow(/refused/);
  });
});
