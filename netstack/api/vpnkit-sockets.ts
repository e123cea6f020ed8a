/** The sockets that VPNKit's clients know besides the control endpoint: publishing by 9P, and a look at what goes on. */
import { createServer, type Socket } from 'node:net';
import { pipeline } from 'node:stream';
import type { Log } from '#common/log';
import type { NetConfig } from '../config.ts';
import type { Network } from '../index.ts';
import type { CaptureControl } from './capture-control.ts';
import { type Forwarder, listenUnix } from './forwarder.ts';
import { introspect, serveDiagnostics } from './introspection.ts';
import { serveNinep } from './ninep-server.ts';
import { PortTree } from './vpnkit-ports.ts';

/**
 * Serves them; each end is added to `ends` as it begins.
 * @throws DrydockError as listenUnix() and Network.captureLive() do
 */
export async function serveVpnkit(
  { network, forwarder, captures }: { network: Network; forwarder: Forwarder; captures: CaptureControl },
  { vpnkitSockets: { ports, introspection, diagnostics, pcap, snapLen }, capture }: NetConfig,
  log: Log,
  ends: (() => Promise<void>)[],
): Promise<void> {
  const tree = new PortTree(forwarder);
  for (const path of ports) {
    ends.push(await serveNinep(path, () => tree.session(), log));
    log.info({ path }, 'ports are published by 9P');
  }
  for (const path of pcap) {
    ends.push(await serveCaptures(path, captures, snapLen, log));
    log.info({ path }, 'frames are given to whoever connects, as pcap');
  }
  if (introspection.length + diagnostics.length === 0) return;
  const { root, close } = await introspect(network, capture?.snapLen);
  ends.push(async () => close());
  for (const path of introspection) ends.push(await serveNinep(path, () => ({ root }), log));
  for (const path of diagnostics) ends.push(await serveDiagnostics(path, root, log));
}

/** Gives frames as they pass to whoever connects, until they leave. @returns ends it. @throws DrydockError as listenUnix() does */
export async function serveCaptures(
  path: string,
  captures: Pick<CaptureControl, 'live'>,
  snapLen: number | undefined,
  log: Log,
): Promise<() => Promise<void>> {
  const query = new URLSearchParams(snapLen === undefined ? {} : { snaplen: String(snapLen) });
  const clients = new Set<Socket>();
  const server = createServer((client) => {
    clients.add(client);
    client.on('error', () => client.destroy()).on('close', () => clients.delete(client));
    captures
      .live(query)
      // Whoever leaves ends the capture.
      .then((frames) => pipeline(frames, client, () => {}))
      .catch((error: unknown) => {
        log.warn({ err: error, path }, 'a capture could not begin');
        client.destroy();
      });
  });
  await listenUnix(server, path);
  return async () => {
    server.close();
    for (const client of clients) client.destroy();
  };
}
