/**
 * The control API of a network: gvproxy's paths, methods and bodies, so that podman machine, lima and crc can use it as they
 * use gvproxy's, and paths of our own for what gvproxy has not. Like gvproxy's it answers JSON as text/plain, and errors as
 * a line of text.
 *
 * Whoever can connect to it controls the network; its sockets are for their owner alone.
 */
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer, type Server, type Socket } from 'node:net';
import { pipeline } from 'node:stream';
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import type { Log } from '#common/log';
import type { Network } from '../index.ts';
import type { PolicyConfig } from '../service/policy.ts';
import type { CaptureControl } from './capture-control.ts';
import { type Dial, type ExposeProtocol, type Forwarder, joinStreams } from './forwarder.ts';
import { formatMetrics } from './metrics.ts';
import type { Answer, Route } from './route.ts';
import { forwardRoutes, type ProxyControl, proxyRoutes } from './vpnkit-http.ts';
import { zoneOfApi, zoneToApi } from './zones.ts';

/** Largest body of a request. */
export const BODY_BYTES_MAX: number = 1024 * 1024;
/** How long a client may take for its head and body. */
const REQUEST_MS_MAX = 30_000;

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

/** Codes of errors that are the client's fault. */
const CLIENT_FAULTS: ReadonlySet<string> = new Set([
  'ERR_BODY_INVALID',
  'ERR_ZONE_INVALID',
  'ERR_NET_CONFIG_INVALID',
  'ERR_POLICY_INVALID',
  'ERR_FORWARD_INVALID',
  'ERR_FILTER_INVALID',
  'ERR_CAPTURE_OPTIONS',
]);

function bodyInvalid(what: string): DrydockError {
  return new DrydockError('ERR_BODY_INVALID', what);
}

function field(body: unknown, name: string): string {
  const value = (body as Record<string, unknown> | null | undefined)?.[name];
  if (typeof value !== 'string') throw bodyInvalid(`The body needs "${name}", a text.`);
  return value;
}

function protocolOf(body: unknown): ExposeProtocol {
  const protocol = (body as { protocol?: unknown } | null)?.protocol ?? 'tcp';
  if (protocol === 'tcp' || protocol === 'udp' || protocol === 'unix') return protocol;
  // `npipe` is Windows's.
  throw bodyInvalid(`The protocol is "${protocol}", not tcp, udp or unix.`);
}

function routes({ network, forwarder, gatewayMac, captures, proxies }: ControlOptions): Route[] {
  const leases = async (): Promise<Answer> => ({
    json: Object.fromEntries([
      [network.gateway, gatewayMac],
      ...(await network.leases()).map(({ address, mac }) => [address, mac]),
    ]),
  });
  return [
    { method: 'GET', path: '/services/forwarder/all', answer: async () => ({ json: forwarder.all() }) },
    {
      method: 'POST',
      path: '/services/forwarder/expose',
      answer: async (body) => {
        await forwarder.expose({
          local: field(body, 'local'),
          remote: field(body, 'remote'),
          protocol: protocolOf(body),
        });
        return {};
      },
    },
    {
      method: 'POST',
      path: '/services/forwarder/unexpose',
      answer: async (body) => {
        await forwarder.unexpose(protocolOf(body), field(body, 'local'));
        return {};
      },
    },
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
          : answer(table, url, request, response);
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

async function answer(
  table: readonly Route[],
  url: URL,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const ofPath = table.filter(({ path }) => path === url.pathname);
  const route = ofPath.find(({ method }) => method === request.method);
  if (!route) {
    const [other] = ofPath;
    // gvproxy's words for its own paths, and those of VPNKit's HTTP server.
    if (other?.manner === 'vpnkit')
      sendVpnkit(response, { status: 405, json: { message: 'Method Not Allowed' } });
    else if (other?.method === 'POST') send(response, 400, 'post only\n');
    else if (other) send(response, 405, `${other.method} only\n`);
    else send(response, 404, '404 page not found\n');
    return;
  }
  try {
    const { method, manner } = route;
    const hasBody = method === 'POST' || method === 'PUT' || (method === 'DELETE' && manner === 'vpnkit');
    const body = hasBody ? await readJson(request) : undefined;
    const given = await route.answer(body, url.searchParams);
    const { status = 200, json, text, stream } = given;
    if (manner === 'vpnkit') sendVpnkit(response, given);
    else if (stream) {
      response.writeHead(status, { 'Content-Type': 'application/vnd.tcpdump.pcap' });
      // The head goes out before the first frame: Wireshark waits for it.
      response.flushHeaders();
      // Whoever leaves ends the capture; nobody is left to be told.
      pipeline(stream, response, () => {});
    } else send(response, status, text ?? (json === undefined ? '' : `${JSON.stringify(json)}\n`));
  } catch (error) {
    if (route.manner === 'vpnkit' && error instanceof DrydockError) {
      sendVpnkit(response, { status: 400, json: { message: error.message } });
      return;
    }
    const status = CLIENT_FAULTS.has(errorCode(error) ?? '') ? 400 : 500;
    send(response, status, `${errorMessage(error)}\n`);
  }
}

function sendVpnkit(response: ServerResponse, { status = 200, json, text = '' }: Answer): void {
  if (json === undefined) send(response, status, text);
  else send(response, status, `${JSON.stringify(json)}\n`, 'application/json; charset=UTF-8');
}

function send(
  response: ServerResponse,
  status: number,
  text: string,
  type = 'text/plain; charset=utf-8',
): void {
  response.writeHead(status, {
    'Content-Type': type,
    'Content-Length': Buffer.byteLength(text),
  });
  response.end(text);
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let length = 0;
  // What is too long is heard to its end, within the time that a request may take: else the answer would be lost.
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length <= BODY_BYTES_MAX) chunks.push(chunk);
  }
  if (length > BODY_BYTES_MAX) throw bodyInvalid(`The body is longer than ${BODY_BYTES_MAX} bytes.`);
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch (error) {
    throw bodyInvalid(errorMessage(error));
  }
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
