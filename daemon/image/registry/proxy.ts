/**
 * Proxies on the way to registries, as Go's net/http has them (golang.org/x/net/http/httpproxy): which URL goes through
 * which proxy, and the tunnel (CONNECT, RFC 9110 section 9.3.6) through which TLS is spoken.
 */
import http from 'node:http';
import https from 'node:https';
import { BlockList, isIP, isIPv4 } from 'node:net';
import querystring from 'node:querystring';
import type { Duplex } from 'node:stream';

/** Proxies by scheme; empty for none. */
export interface ProxyOptions {
  http: string;
  https: string;
  /** Hosts, `.domains`, addresses and subnets that are reached directly, with commas between; `*`: all. */
  none: string;
}

/** Everything is reached directly. */
export const NO_PROXIES: ProxyOptions = { http: '', https: '', none: '' };

/** The proxy for a URL, or undefined when it is reached directly. */
export function proxyFor(url: URL, options: ProxyOptions): URL | undefined {
  const proxy = url.protocol === 'https:' ? options.https : options.http;
  const host = url.hostname.replace(/^\[|\]$/g, '').toLowerCase();
  const isLocal = host === 'localhost' || /^127\.|^::1$/.test(host);
  if (proxy === '' || isLocal || isExempt(host, url.port, options.none)) return undefined;
  return new URL(proxy);
}

function isExempt(host: string, port: string, none: string): boolean {
  return none
    .split(',')
    .map((entry) => entry.trim().toLowerCase())
    .filter((entry) => entry !== '')
    .some((entry) => {
      if (entry === '*') return true;
      if (entry.includes('/')) return isIP(host) !== 0 && inSubnet(host, entry);
      const [, name = entry, wantedPort = ''] = /^([^:]+):(\d+)$/.exec(entry) ?? [];
      if (wantedPort !== '' && wantedPort !== port) return false;
      const domain = name.replace(/^\*?\./, '');
      return (name === domain && host === name) || (isIP(host) === 0 && host.endsWith(`.${domain}`));
    });
}

/** Whether an address lies in a subnet as `10.0.0.0/8`; false for what is none. */
export function inSubnet(address: string, subnet: string): boolean {
  const [base = '', bits = ''] = subnet.split('/');
  const family = isIPv4(base) ? 'ipv4' : 'ipv6';
  if (isIP(base) === 0 || !/^\d{1,3}$/.test(bits) || Number(bits) > (family === 'ipv4' ? 32 : 128))
    return false;
  const list = new BlockList();
  list.addSubnet(base, Number(bits), family);
  return list.check(address, isIPv4(address) ? 'ipv4' : 'ipv6');
}

/** Proxy-Authorization of a proxy whose URL holds a name and password. */
export function proxyHeaders(proxy: URL): Record<string, string> {
  if (proxy.username === '') return {};
  const login = `${querystring.unescape(proxy.username)}:${querystring.unescape(proxy.password)}`;
  return { 'Proxy-Authorization': `Basic ${Buffer.from(login).toString('base64')}` };
}

/** A connection to a host through a proxy. Rejects with what the proxy says when it refuses. */
export function tunnel(proxy: URL, target: URL, signal?: AbortSignal): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    const authority = `${target.hostname}:${target.port || 443}`;
    const request = (proxy.protocol === 'https:' ? https : http).request({
      host: proxy.hostname.replace(/^\[|\]$/g, ''),
      port: proxy.port || (proxy.protocol === 'https:' ? 443 : 80),
      method: 'CONNECT',
      path: authority,
      headers: { Host: authority, ...proxyHeaders(proxy) },
      ...(signal && { signal }),
    });
    request.on('connect', (answer, socket) => {
      if (answer.statusCode === 200) return resolve(socket);
      socket.destroy();
      reject(new Error(`the proxy ${proxy.host} refused: ${answer.statusCode} ${answer.statusMessage}`));
    });
    request.on('response', (answer) => {
      answer.resume();
      reject(new Error(`the proxy ${proxy.host} refused: ${answer.statusCode} ${answer.statusMessage}`));
    });
    request.on('error', reject);
    request.end();
  });
}
