/**
 * VPNKit's control over HTTP: its newer port forwarding (go/pkg/vpnkit/http/http.go, port.go, control/control.go) and
 * the HTTP proxy's settings (src/hostnet/slirp.ml, http_intercept_api_handler).
 */
import { DrydockError } from '#common/errors';
import { mapping, oneOf, text, whole } from '../config-shape.ts';
import { formatVpnkitHttp, readVpnkitHttp } from '../config-vpnkit.ts';
import type { HttpProxyConfig, Network } from '../index.ts';
import type { Exposed, Forwarder } from './forwarder.ts';
import type { Answer, Route } from './route.ts';

/** Annotations that are remembered; those of ports that have gone are among them until they are asked for anew. */
const ANNOTATIONS_MAX = 4096;

/** The proxies of a network, and what they were last told. */
export class ProxyControl {
  readonly #network: Network;
  #config: HttpProxyConfig | undefined;

  constructor(network: Network) {
    this.#network = network;
  }

  get config(): HttpProxyConfig | undefined {
    return this.#config;
  }

  /** @throws DrydockError as Network.useHttpProxy() does */
  async set(config: HttpProxyConfig | undefined): Promise<void> {
    await this.#network.useHttpProxy(config);
    this.#config = config;
  }
}

/** A port in the API's JSON: what is empty is left out. */
const readPort = mapping({
  proto: oneOf('tcp', 'udp', 'unix'),
  out_ip: text,
  out_port: whole,
  out_path: text,
  in_ip: text,
  in_port: whole,
  in_path: text,
  annotation: text,
});
type Port = ReturnType<typeof readPort>;

function refused(message: string): DrydockError {
  return new DrydockError('ERR_FORWARD_INVALID', message);
}

function endpoint(ip: string | undefined, port: number | undefined): string {
  const address = ip ?? '';
  return `${address.includes(':') ? `[${address}]` : address}:${port ?? 0}`;
}

function exposedOf(port: Port): Exposed {
  if (port.proto !== 'tcp' && port.proto !== 'udp') throw refused('exposed ports can only be TCP or UDP');
  return {
    protocol: port.proto,
    local: endpoint(port.out_ip, port.out_port),
    remote: endpoint(port.in_ip, port.in_port),
  };
}

/** The machine's sockets are files of the machine, which only a program inside could open. */
function refusePipe(body: unknown): never {
  const { proto, in_path: path = '' } = readPort(body, 'The body');
  if (proto !== 'unix') throw refused('exposed pipes can only have proto=Unix');
  throw refused(
    `The socket ${path} is inside the machine, whose files its wire does not reach. Expose a port of it, or a socket that leads ` +
      'to one by /services/forwarder/expose.',
  );
}

function portOf({ protocol, local, remote }: Exposed, annotation: string | undefined): Port {
  const split = (place: string): [ip: string, port: number] => {
    const at = place.lastIndexOf(':');
    return [place.slice(0, at).replace(/^\[(.*)\]$/, '$1'), Number(place.slice(at + 1))];
  };
  const [outIp, outPort] = split(local);
  const [inIp, inPort] = split(remote);
  return {
    proto: protocol,
    ...(outIp !== '' && { out_ip: outIp }),
    out_port: outPort,
    ...(inIp !== '' && { in_ip: inIp }),
    in_port: inPort,
    ...(annotation !== undefined && { annotation }),
  };
}

/** The paths below `/forwards`: exposing what is exposed already, and unexposing what is not, succeeds. */
export function forwardRoutes(forwarder: Forwarder, network: Network): Route[] {
  const annotations = new Map<string, string>();
  const key = ({ protocol, local }: Exposed): string => `${protocol} ${local}`;
  const ports = (): Exposed[] => forwarder.all().filter(({ protocol }) => protocol !== 'unix');
  const expose = async (body: unknown): Promise<Answer> => {
    const port = readPort(body, 'The body');
    const wish = exposedOf(port);
    const isThere = ports().some((row) => key(row) === key(wish) && row.remote === wish.remote);
    const row = isThere ? wish : await forwarder.expose(wish);
    annotations.delete(key(row));
    if (annotations.size >= ANNOTATIONS_MAX) annotations.clear();
    if (port.annotation !== undefined) annotations.set(key(row), port.annotation);
    return {};
  };
  const unexpose = async (body: unknown): Promise<Answer> => {
    const wish = exposedOf(readPort(body, 'The body'));
    annotations.delete(key(wish));
    const isThere = ports().some((row) => key(row) === key(wish));
    if (isThere) await forwarder.unexpose(wish.protocol, wish.local);
    return {};
  };
  const both = (methods: Route['method'][], path: string, answer: Route['answer']): Route[] =>
    methods.map((method) => ({ method, path, manner: 'vpnkit', answer }));
  const pipe = async (body: unknown): Promise<Answer> => refusePipe(body);
  return [
    ...both(['PUT', 'POST'], '/forwards/expose/port', expose),
    ...both(['PUT', 'POST'], '/forwards/expose/pipe', pipe),
    ...both(['DELETE', 'POST'], '/forwards/unexpose/port', unexpose),
    ...both(['DELETE', 'POST'], '/forwards/unexpose/pipe', pipe),
    ...both(['GET'], '/forwards/list', async () => ({
      json: ports().map((row) => portOf(row, annotations.get(key(row)))),
    })),
    ...both(['GET'], '/forwards/dump', async () => ({
      text: [
        ...ports().map(({ protocol, local, remote }) => `${protocol} forward from ${local} to ${remote}`),
        ...(await network.flows())
          .filter(({ initiator }) => initiator === 'host')
          .map(({ protocol, target, guest, state }) => `${protocol} ${target} -> ${guest} ${state}`),
      ]
        .map((line) => `${line}\n`)
        .join(''),
    })),
  ];
}

/** `/http_proxy.json`: the body of `--http`'s file. */
export function proxyRoutes(proxies: ProxyControl): Route[] {
  const path = '/http_proxy.json';
  return [
    {
      method: 'GET',
      path,
      manner: 'vpnkit',
      answer: async () =>
        proxies.config ? { json: formatVpnkitHttp(proxies.config) } : { status: 404, text: '' },
    },
    {
      method: 'POST',
      path,
      manner: 'vpnkit',
      answer: async (body) => {
        await proxies.set(readVpnkitHttp(body));
        return {};
      },
    },
  ];
}
