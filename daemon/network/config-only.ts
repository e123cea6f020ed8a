/**
 * Networks that only hold a configuration (`--config-only`), and the networks made from them (`--config-from`). Nothing runs on the
 * first kind: it is what several networks have in common (moby: libnetwork/network.go, validateConfiguration). Pure.
 */
import { DrydockError } from '#common/errors';
import type { CreateNetworkRequest, NetworkRecord } from './record.ts';

function refused(message: string): DrydockError {
  return new DrydockError('ERR_FORBIDDEN', message);
}

/** Refuses what a configuration can't hold. @throws ERR_FORBIDDEN */
export function checkConfiguration(request: CreateNetworkRequest): void {
  if (request.Ingress || request.Internal || request.Attachable || request.Scope)
    throw refused(
      'configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.',
    );
  if (request.ConfigFrom?.Network)
    throw refused('a configuration network cannot depend on another configuration network');
}

/**
 * A request with what its configuration says.
 * @param configuration the network that it names, if there is one @throws ERR_FORBIDDEN, ERR_NETWORK_NOT_FOUND
 */
export function fromConfiguration(
  request: CreateNetworkRequest,
  configuration: NetworkRecord | undefined,
): CreateNetworkRequest {
  const { IPAM, EnableIPv6, Labels, Options } = request;
  if (EnableIPv6 || IPAM?.Config?.length || hasEntries(IPAM?.Options) || hasEntries(Labels))
    throw refused(
      'user specified configurations are not supported if the network depends on a configuration network',
    );
  if (hasEntries(Options))
    throw refused(
      'network driver options are not supported if the network depends on a configuration network',
    );
  if (!configuration?.configuration)
    throw new DrydockError(
      'ERR_NETWORK_NOT_FOUND',
      `configuration network ${JSON.stringify(request.ConfigFrom?.Network)} does not exist`,
    );
  return {
    ...request,
    ...configuration.configuration,
    Labels: configuration.labels,
    Options: configuration.options,
  };
}

function hasEntries(value: object | null | undefined): boolean {
  return Object.keys(value ?? {}).length > 0;
}
