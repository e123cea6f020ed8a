/** gvproxy's paths for published ports, as the host and its machines ask for them. */
import { DrydockError } from '#common/errors';
import { bodyInvalid } from './answer.ts';
import type { ExposeProtocol, Forwarder } from './forwarder.ts';
import type { Route } from './route.ts';

function field(body: unknown, name: string): string {
  const value = (body as Record<string, unknown> | null | undefined)?.[name];
  if (typeof value !== 'string') throw bodyInvalid(`The body needs "${name}", a text.`);
  return value;
}

function protocolOf(body: unknown, caller: string | undefined): ExposeProtocol {
  const protocol = (body as { protocol?: unknown } | null)?.protocol ?? 'tcp';
  if (protocol === 'tcp' || protocol === 'udp') return protocol;
  // The file system is the host's alone.
  if (protocol === 'unix' && caller !== undefined)
    throw new DrydockError('ERR_FORWARD_FORBIDDEN', 'A machine may expose TCP and UDP ports only.');
  if (protocol === 'unix') return protocol;
  // `npipe` is Windows's.
  throw bodyInvalid(`The protocol is "${protocol}", not tcp, udp or unix.`);
}

/** The paths below `/services/forwarder`. */
export function forwarderRoutes(forwarder: Forwarder): Route[] {
  return [
    { method: 'GET', path: '/services/forwarder/all', answer: async () => ({ json: forwarder.all() }) },
    {
      method: 'POST',
      path: '/services/forwarder/expose',
      answer: async (body, _query, caller) => {
        await forwarder.expose(
          { local: field(body, 'local'), remote: field(body, 'remote'), protocol: protocolOf(body, caller) },
          caller,
        );
        return {};
      },
    },
    {
      method: 'POST',
      path: '/services/forwarder/unexpose',
      answer: async (body, _query, caller) => {
        await forwarder.unexpose(protocolOf(body, caller), field(body, 'local'), caller);
        return {};
      },
    },
  ];
}
