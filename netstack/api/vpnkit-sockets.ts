/** The sockets that VPNKit's clients know besides the control endpoint: publishing by 9P, and a look at what goes on. */
import type { Log } from '#common/log';
import type { NetConfig } from '../config.ts';
import type { Network } from '../index.ts';
import type { Forwarder } from './forwarder.ts';
import { introspect, serveDiagnostics } from './introspection.ts';
import { serveNinep } from './ninep-server.ts';
import { PortTree } from './vpnkit-ports.ts';

/**
 * Serves them; each end is added to `ends` as it begins.
 * @throws DrydockError as listenUnix() and Network.captureLive() do
 */
export async function serveVpnkit(
  { network, forwarder }: { network: Network; forwarder: Forwarder },
  { vpnkitSockets: { ports, introspection, diagnostics }, capture }: NetConfig,
  log: Log,
  ends: (() => Promise<void>)[],
): Promise<void> {
  const tree = new PortTree(forwarder);
  for (const path of ports) {
    ends.push(await serveNinep(path, () => tree.session(), log));
    log.info({ path }, 'ports are published by 9P');
  }
  if (introspection.length + diagnostics.length === 0) return;
  const { root, close } = await introspect(network, capture?.snapLen);
  ends.push(async () => close());
  for (const path of introspection) ends.push(await serveNinep(path, () => ({ root }), log));
  for (const path of diagnostics) ends.push(await serveDiagnostics(path, root, log));
}
