/**
 * What machines may ask of their network at the gateway's port 80, as gvproxy has it: to publish ports of theirs. podman does
 * so in its machine for every port of a container.
 */
import { createServer } from 'node:http';
import type { Socket } from 'node:net';
import type { Log } from '#common/log';
import type { Network } from '../index.ts';
import { answer, REQUEST_MS_MAX } from './answer.ts';
import type { Forwarder } from './forwarder.ts';
import { forwarderRoutes } from './forwarder-routes.ts';

/** The port of the gateway. */
const PORT = 80;
/** Connections at once, of all machines and of each. */
export const GUEST_CONNECTIONS_MAX = 256;
export const CONNECTIONS_PER_GUEST_MAX = 32;

/**
 * Serves it; returns its end.
 * @throws DrydockError as Network.serve() does
 */
export async function serveGuests(
  network: Pick<Network, 'serve'>,
  forwarder: Forwarder,
  log: Log,
): Promise<() => Promise<void>> {
  const table = forwarderRoutes(forwarder);
  const callers = new Map<Socket, string>();
  const http = createServer(
    { requestTimeout: REQUEST_MS_MAX, headersTimeout: REQUEST_MS_MAX },
    (request, response) => {
      answer(table, request, response, callers.get(request.socket)).catch((error: unknown) => {
        log.error({ err: error }, 'a request of a machine failed');
        response.destroy();
      });
    },
  );
  const served = await network.serve(PORT, (socket, guest) => {
    const own = [...callers.values()].filter((caller) => caller === guest).length;
    if (own >= CONNECTIONS_PER_GUEST_MAX || callers.size >= GUEST_CONNECTIONS_MAX) {
      socket.destroy();
      return;
    }
    callers.set(socket, guest);
    socket.on('close', () => callers.delete(socket));
    http.emit('connection', socket);
  });
  return async () => {
    await served.close();
    for (const socket of callers.keys()) socket.destroy();
  };
}
