/**
 * Keeps web pages away from the API where they could reach it: on TCP, unless clients prove themselves by a certificate.
 * Whoever may speak to the API is root on this machine, and a browser speaks for any page that it shows.
 *
 * - DNS rebinding: a page's own name is made to mean this machine, so that its requests count as its own. They still
 *   name it in Host, where the clients that are meant name an address or this machine.
 * - Forged requests (CSRF): a page may send some requests anywhere, without reading the answer. Then the browser tells of
 *   it by Origin or Sec-Fetch-Site, which a page can't forge and other clients don't send.
 */
import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import { hostname } from 'node:os';
import type { TLSSocket } from 'node:tls';
import { DrydockError } from '#common/errors';

/** Names of this machine, for itself and for its containers. */
const OWN_NAMES: ReadonlySet<string> = new Set([
  'localhost',
  'host.docker.internal',
  'gateway.docker.internal',
  'host.containers.internal',
  hostname().toLowerCase(),
]);

/** `[::1]:2375` and `name.:80` without port, brackets and the dot at the end. */
function hostOf(header: string): string {
  const [, bracketed, name = ''] = /^(?:\[([^\]]*)\]|([^:]*))(?::\d*)?$/.exec(header) ?? [];
  return (bracketed ?? name).toLowerCase().replace(/\.$/, '');
}

/** @throws DrydockError ERR_FORBIDDEN for what a page of somebody else could have sent */
export function refusePages({ socket, headers }: Pick<IncomingMessage, 'socket' | 'headers'>): void {
  const isLocal = socket.remoteAddress === undefined;
  if (isLocal || (socket as TLSSocket).authorized === true) return;
  const { host = '', origin, 'sec-fetch-site': site } = headers;
  const name = hostOf(host);
  // A request of HTTP/1.0 need not have one, and no browser makes such.
  if (host !== '' && isIP(name) === 0 && !OWN_NAMES.has(name))
    throw new DrydockError(
      'ERR_FORBIDDEN',
      `requests for ${JSON.stringify(host)} are refused, since a web page could have sent them: use this machine's address or name in DOCKER_HOST, or TLS with --tlsverify`,
    );
  const isOwn = origin === undefined || origin === `http://${host}` || origin === `https://${host}`;
  if (!isOwn || (site !== undefined && site !== 'same-origin' && site !== 'none'))
    throw new DrydockError('ERR_FORBIDDEN', 'requests of web pages from elsewhere are refused');
}
