/** From the configuration of a network's proxies to the proxy of the main thread and the routes of the network's. */
import { lookup } from 'node:dns/promises';
import { DrydockError, errorMessage } from '#common/errors';
import type { HttpProxyConfig } from '../index.ts';
import type { EgressRules } from '../service/policy.ts';
import type { ProxyRoutes, TransparentRoute } from '../service/proxied-host.ts';
import { DEFAULT_HOST_NAMES } from '../service/services.ts';
import { parseAddress } from '../wire/address.ts';
import { HttpProxy, parseExcludes, parseUpstreamProxy, type UpstreamProxy } from './http-proxy.ts';

/** @throws DrydockError ERR_PROXY_INVALID, ERR_PROXY_UNKNOWN */
export async function planProxy(
  config: HttpProxyConfig,
  policy: EgressRules,
): Promise<{ proxy: HttpProxy | undefined; routes: ProxyRoutes }> {
  const http = config.http === undefined ? undefined : parseUpstreamProxy(config.http);
  const https = config.https === undefined ? undefined : parseUpstreamProxy(config.https);
  const excludes = parseExcludes(config.exclude ?? '');
  const allow = config.allow && parseExcludes(config.allow.join(','));
  const { transparentHttpPorts = [], transparentHttpsPorts = [] } = config;
  const transparent = [
    ...(await transparentRoute(http, transparentHttpPorts, allow !== undefined)),
    ...(await transparentRoute(https, transparentHttpsPorts, allow !== undefined)),
  ];
  const routes: ProxyRoutes = {
    transparent,
    excludes,
    ...(allow && { allowed: { ports: [...transparentHttpPorts, ...transparentHttpsPorts], targets: allow } }),
  };
  if (config.port === undefined) return { proxy: undefined, routes };
  const proxy = new HttpProxy({
    ...(http && { http }),
    ...(https && { https }),
    excludes,
    ...(allow && { allow, ...(config.allowMessage !== undefined && { allowMessage: config.allowMessage }) }),
    policy,
    hostNames: DEFAULT_HOST_NAMES,
  });
  const hostPort = await proxy.listen();
  const explicit = { guestPort: config.port, hostPort, secret: Uint8Array.from(proxy.secret) };
  return { proxy, routes: { ...routes, explicit } };
}

async function transparentRoute(
  upstream: UpstreamProxy | undefined,
  ports: number[],
  isListed: boolean,
): Promise<TransparentRoute[]> {
  // With a list of what is allowed, ports are looked at that go by no proxy.
  if (ports.length === 0 || (isListed && !upstream)) return [];
  if (!upstream)
    throw new DrydockError(
      'ERR_PROXY_INVALID',
      `Ports ${ports.join(', ')} are to go by an upstream proxy, but none is given for them.`,
    );
  const found = await lookup(upstream.host).catch((error: unknown) => {
    throw new DrydockError(
      'ERR_PROXY_UNKNOWN',
      `The upstream proxy ${upstream.host} has no address: ${errorMessage(error)}.`,
    );
  });
  const { port, authorization } = upstream;
  return [{ ports, address: parseAddress(found.address)!, port, authorization }];
}
