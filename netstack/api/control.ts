/**
 * The control API of a network: gvproxy's paths, methods and bodies, so that podman machine, lima and crc can use it as they
 * use gvproxy's, and paths of our own for what gvproxy has not. Like gvproxy's it answers JSON as text/plain, and errors as
 * a line of text.
 *
 * Whoever can connect to it controls the network; its sockets are for their owner alone.
 */
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer, type Server, type Socket } from 'node:net';
import { errorMessage } from '#common/errors';
import type { Log } from '#common/log';
import type { Network } from '../index.ts';
import type { PolicyConfig } from '../service/policy.ts';
import { answer, bodyInvalid, REQUEST_MS_MAX, send } from './answer.ts';
import type { CaptureControl } from './capture-control.ts';
import { type Dial, type Forwarder, joinStreams } from './forwarder.ts';
import { forwarderRoutes } from './forwarder-routes.ts';
import { formatMetrics } from './metrics.ts';
import type { Answer, Route } from './route.ts';
import { forwardRoutes, type ProxyControl, proxyRoutes } from './vpnkit-http.ts';
import { waitPortRoute } from './wait-port.ts';
import { zoneOfApi, zoneToApi } from './zones.ts';

/** What the API controls. */
export interface ControlOptions {
  network: Network;
  forwarder: Forwarder;
  captures: CaptureControl;
  proxies: ProxyControl;
  dial: Dial;
  /** MAC address of the gateway, shown among the leases as gvproxy does. */
  gatewayMac: string;
  log: Log;
  /** Takes machines that come with `POST /connect`; without it there is no such path. */
  connect?: (stream: Socket) => void;
}

/** A control server: listen with `server`, end with `close`. */
export interface ControlServer {
  readonly server: Server;
  /** Ends listening and every connection, whatever it has become. */
  close(): Promise<void>;
}

/** How the request of a machine begins (`POST /connect`), as Go's client writes it. */
const CONNECT_HEAD = 'POST /connect ';

function routes({ network, forwarder, gatewayMac, captures, proxies, dial }: ControlOptions): Route[] {
  const leases = async (): Promise<Answer> => ({
    json: Object.fromEntries([
      [network.gateway, gatewayMac],
      ...(await network.leases()).map(({ address, mac }) => [address, mac]),
    ]),
  });
  return [
    ...forwarderRoutes(forwarder),
    {
      method: 'GET',
      path: '/services/dns/all',
      answer: async () => ({ json: (await network.zones()).map(zoneToApi) }),
    },
    {
      method: 'POST',
      path: '/services/dns/add',
      answer: async (body) => {
        await network.addZone(zoneOfApi(body));
        return {};
      },
    },
    { method: 'GET', path: '/services/dhcp/leases', answer: leases },
    { method: 'GET', path: '/leases', answer: leases },
    {
      method: 'GET',
      path: '/cam',
      answer: async () => ({
        json: Object.fromEntries((await network.switchTable()).map(({ mac, port }) => [mac, port])),
      }),
    },
    waitPortRoute(dial),
    ...forwardRoutes(forwarder, network),
    ...proxyRoutes(proxies),
    { method: 'GET', path: '/stats', answer: async () => ({ json: await network.stats() }) },
    // Ours:
    { method: 'GET', path: '/flows', answer: async () => ({ json: await network.flows() }) },
    {
      method: 'PUT',
      path: '/policy',
      answer: async (body) => {
        const { rules = [], ...rest } = (body ?? {}) as Partial<PolicyConfig>;
        if (!Array.isArray(rules)) throw bodyInvalid('"rules" of a policy is a list.');
        await network.setPolicy({ default: 'allow', ...rest, rules });
        return {};
      },
    },
    { method: 'GET', path: '/policy/denied', answer: async () => ({ json: await network.denied() }) },
    { method: 'GET', path: '/capture', answer: async () => ({ json: await captures.state() }) },
    {
      method: 'POST',
      path: '/capture',
      answer: async (body) => ({ json: await captures.start(body) }),
    },
    { method: 'DELETE', path: '/capture', answer: async () => ({ json: await captures.end() }) },
    {
      method: 'GET',
      path: '/capture/live',
      answer: async (_body, query) => ({ stream: await captures.live(query) }),
    },
    {
      method: 'GET',
      path: '/metrics',
      answer: async () => ({ text: formatMetrics(network.name, await network.stats()) }),
    },
  ];
}

/** Makes the API's server; the caller lets it listen. */
export function createControlServer(options: ControlOptions): ControlServer {
  const table = routes(options);
  const http = createHttpServer(
    { requestTimeout: REQUEST_MS_MAX, headersTimeout: REQUEST_MS_MAX },
    (request, response) => {
      // Pages of a browser on this machine can reach a TCP endpoint, and text/plain needs no preflight.
      if (request.headers.origin !== undefined) {
        send(response, 403, 'not for browsers\n');
        return;
      }
      const url = new URL(request.url ?? '/', 'http://control');
      const handled =
        url.pathname === '/tunnel'
          ? tunnel(options, url.searchParams, request, response)
          : answer(table, request, response);
      handled.catch((error: unknown) => {
        options.log.error({ err: error }, 'control API failed');
        response.destroy();
      });
    },
  );
  const { connect } = options;
  const open = new Set<Socket>();
  // Bytes that follow a machine's request are frames, which an HTTP parser must never see: the first bytes of a
  // connection decide who gets it.
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    open.add(socket);
    socket.on('close', () => open.delete(socket));
    const end = (): void => void socket.destroy();
    let head = Buffer.alloc(0);
    const look = (): void => {
      for (let chunk = socket.read(); chunk; chunk = socket.read())
        head = Buffer.concat([head, chunk as Buffer]);
      if (head.length === 0) return;
      const text = head.toString('latin1', 0, CONNECT_HEAD.length);
      if (connect && text.length < CONNECT_HEAD.length && CONNECT_HEAD.startsWith(text)) return;
      socket.off('readable', look).off('error', end).off('end', end);
      socket.setTimeout(0);
      socket.unshift(head);
      if (connect && text === CONNECT_HEAD) connect(socket);
      else http.emit('connection', socket);
    };
    socket.setTimeout(REQUEST_MS_MAX, end);
    socket.on('readable', look).on('error', end).on('end', end);
  });
  return {
    server,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of open) socket.destroy();
      }),
  };
}

/**
 * GET /tunnel?ip=A&port=P: the connection becomes one to a guest's port. As gvproxy's, the answer is the two bytes `OK` without
 * a status line; what fails is told by an ordinary HTTP answer.
 */
async function tunnel(
  { dial }: ControlOptions,
  query: URLSearchParams,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const ip = query.get('ip');
  const port = Number(query.get('port'));
  if (!ip) return send(response, 500, 'ip is mandatory\n');
  if (!Number.isInteger(port) || port < 1 || port > 65535) return send(response, 500, 'port is mandatory\n');
  const socket = takeOver(request, response);
  try {
    const guest = await dial(ip, port);
    socket.write('OK');
    joinStreams(socket, guest);
  } catch (error) {
    const text = `${errorMessage(error)}\n`;
    socket.end(
      'HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain; charset=utf-8\r\n' +
        `Content-Length: ${Buffer.byteLength(text)}\r\nConnection: close\r\n\r\n${text}`,
    );
  }
}

/**
 * Takes a connection away from HTTP: its parser would take the bytes that follow, and its listeners end both ways at the
 * client's end of stream. From here the socket is ours, errors included.
 */
function takeOver(request: IncomingMessage, response: ServerResponse): Socket {
  const { socket } = request;
  response.detachSocket(socket);
  for (const event of ['data', 'end', 'timeout']) socket.removeAllListeners(event);
  socket.setTimeout(0);
  socket.on('error', () => socket.destroy());
  return socket;
}
