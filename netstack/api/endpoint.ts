/**
 * Where a control server listens: `unix:///path` or `tcp://address:port`, as gvproxy writes it, or `fd:N`, as VPNKit does.
 */
import type { Server } from 'node:net';
import { DrydockError, errorCode } from '#common/errors';
import { parseDescriptor } from '../units.ts';
import { listenUnix, parseEndpoint } from './forwarder.ts';

/**
 * Lets a server listen.
 * @throws DrydockError ERR_ENDPOINT_INVALID, ERR_SOCKET_IN_USE, ERR_SOCKET_FAILED, ERR_FORWARD_INVALID
 */
export async function listenAt(server: Server, endpoint: string): Promise<void> {
  if (parseDescriptor(endpoint) !== undefined) return listenUnix(server, endpoint);
  const [scheme, rest] = endpoint.split('://', 2) as [string, string | undefined];
  if (scheme === 'unix' && rest?.startsWith('/')) return listenUnix(server, rest);
  if (scheme !== 'tcp' || rest === undefined)
    throw new DrydockError(
      'ERR_ENDPOINT_INVALID',
      `"${endpoint}" is no endpoint. Give one like unix:///run/net.sock or tcp://127.0.0.1:7777.`,
    );
  const { address, port } = parseEndpoint(rest);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) =>
      reject(
        new DrydockError(
          'ERR_SOCKET_FAILED',
          `Cannot listen at ${endpoint}: ${errorCode(error) ?? error.message}.`,
          {
            cause: error,
          },
        ),
      ),
    );
    server.listen(port, address, resolve);
  });
}
