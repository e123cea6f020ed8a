/** Published ports: listeners of the host that lead to a container. */
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import type { PublishedPort } from '#netstack';
import type { Endpoint } from './endpoint.ts';
import type { EngineNetwork } from './engine-network.ts';
import type { PortWish } from './ports.ts';

/** A port that is open, and what for. */
export interface OpenPort {
  wish: PortWish;
  port: PublishedPort;
}

/** Where ports lead. */
export interface PublishPlace {
  network: EngineNetwork;
  endpoint: Endpoint;
  /** Of the host, for ports that name none (host_binding_ipv4); undefined: all of IPv4 and IPv6. */
  hostAddress: string | undefined;
}

/** Opens a port; each listener is in `opened` as soon as it is there. @throws ERR_PUBLISH in dockerd's words */
export async function openPort(place: PublishPlace, wish: PortWish, opened: OpenPort[]): Promise<void> {
  const { address, ipv6 } = place.endpoint.attachment;
  const open = (hostAddress: string, hostPort: number): Promise<PublishedPort> =>
    place.network.publish({
      protocol: wish.guest.protocol,
      hostAddress,
      hostPort,
      // A client meets the guest's own address of its family, where it has one.
      guestAddress: (hostAddress.includes(':') && ipv6?.address) || address || ipv6!.address,
      guestPort: wish.guest.port,
    });
  const [first = '0.0.0.0', second] =
    wish.hostAddress || place.hostAddress ? [wish.hostAddress || place.hostAddress] : ['0.0.0.0', '::'];
  for (let hostPort = wish.hostFirst; ; hostPort++) {
    try {
      const port = await open(first, hostPort);
      opened.push({ wish, port });
      const other = second && (await open(second, port.hostPort).catch(ignoreMissingFamily));
      if (other) opened.push({ wish, port: other });
      return;
    } catch (error) {
      if (errorCode(error) === 'ERR_PORT_IN_USE' && hostPort < wish.hostLast) continue;
      throw publishFailure(place.endpoint, `${first}:${hostPort}`, error);
    }
  }
}

/** A host without IPv6 publishes on IPv4 alone, as dockerd. */
function ignoreMissingFamily(error: unknown): undefined {
  if (errorCode(error) === 'ERR_ADDRESS_NOT_AVAILABLE') return undefined;
  throw error;
}

function publishFailure({ containerName, settings }: Endpoint, where: string, error: unknown): DrydockError {
  const reason =
    errorCode(error) === 'ERR_PORT_IN_USE'
      ? `Bind for ${where} failed: port is already allocated`
      : errorMessage(error);
  return new DrydockError(
    'ERR_PUBLISH',
    `driver failed programming external connectivity on endpoint ${containerName} (${settings.EndpointID}): ${reason}`,
    { cause: error },
  );
}
