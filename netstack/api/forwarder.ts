/**
 * Published ports by gvproxy's API: what is exposed is known by its protocol and local address, each once.
 *
 * A port reaches the guest by the network itself. A unix socket is a listener of this process, whose connections are joined
 * to connections into the guest.
 */
import { chmod, lstat, unlink } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import querystring from 'node:querystring';
import { DrydockError, errorCode } from '#common/errors';
import type { Network, PublishedPort } from '../index.ts';
import { parseDescriptor } from '../units.ts';
import { formatAddress, parseAddress } from '../wire/address.ts';

/** Most exposed ports, ranges of them and sockets at once. */
export const EXPOSED_MAX = 4096;
/** Most ports of one range. */
export const PORT_RANGE_MAX = 1024;
/** Most ports that guests have asked for: each is a socket of the host. */
export const GUEST_PORTS_MAX = 2048;

export type ExposeProtocol = 'tcp' | 'udp' | 'unix';

/** One row, as gvproxy shows it. */
export interface Exposed {
  local: string;
  remote: string;
  protocol: ExposeProtocol;
}

/** Connects into the network: the stream is established, or the promise rejects. */
export type Dial = (address: string, port: number) => Promise<Socket>;

interface Row extends Exposed {
  /** Ports of the host that a guest has asked for; 0 for what the host has. */
  guestPorts: number;
  close(): Promise<void>;
}

function invalid(message: string): DrydockError {
  return new DrydockError('ERR_FORWARD_INVALID', message);
}

/** Reads `address:port`, `[address]:port` or `:port`; an empty address is every one of the host, or the one given. */
export function parseEndpoint(text: string, anyAddress?: string): { address: string; port: number } {
  const { address, port, count } = parsePorts(text, anyAddress);
  if (count > 1) throw invalid(`"${text}" names several ports, where one is wanted.`);
  return { address, port };
}

/** The same, and `address:first-last`. */
function parsePorts(text: string, anyAddress = '0.0.0.0'): { address: string; port: number; count: number } {
  const match = /^(?:\[(?<v6>[^\]]*)\]|(?<v4>[^:]*)):(?<port>\d{1,5})(?:-(?<last>\d{1,5}))?$/.exec(text);
  const host = match?.groups?.v6 ?? match?.groups?.v4 ?? '';
  const address = host === '' ? anyAddress : host === 'localhost' ? '127.0.0.1' : host;
  const port = Number(match?.groups?.port);
  const last = Number(match?.groups?.last ?? port);
  if (!match || last > 65535 || last < port || (last > port && port === 0) || !parseAddress(address))
    throw invalid(
      `"${text}" is no address and port. Give one like 127.0.0.1:8080 or :8080, or a range like 127.0.0.1:8080-8090.`,
    );
  return { address, port, count: last - port + 1 };
}

/** A socket in a machine, and who may go there by SSH. */
export interface SshTarget {
  address: string;
  port: number;
  user: string;
  /** File of the user's key. */
  identity: string;
  /** The socket's path there. */
  dest: string;
}

/** Leads a unix socket of the host to one in a machine over SSH; returns its end. */
export type SshTunnel = (socket: string, target: SshTarget) => Promise<() => Promise<void>>;

/** Reads gvproxy's `ssh-tunnel://user@address:port/path?key=FILE`. */
export function parseSshTarget(text: string): SshTarget {
  const wrong = (why: string): DrydockError =>
    invalid(
      `"${text.replace(/(passphrase=)[^&]*/, '$1…')}" ${why}. Give one like ` +
        'ssh-tunnel://user@192.168.127.2:22/run/podman/podman.sock?key=/path/of/the/key.',
    );
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const address = url?.hostname.replace(/^\[|\]$/g, '') ?? '';
  const identity = url?.searchParams.get('key') ?? '';
  if (url?.protocol !== 'ssh-tunnel:' || url.username === '' || url.pathname.length < 2 || identity === '')
    throw wrong('is no remote over SSH');
  if (!parseAddress(address)) throw wrong("does not name the machine's address");
  if (url.searchParams.has('passphrase'))
    throw wrong('has a passphrase, which ssh takes from an agent only: use a key without one');
  return {
    address,
    port: Number(url.port || 22),
    user: querystring.unescape(url.username),
    identity,
    dest: querystring.unescape(url.pathname),
  };
}

/** What is exposed of one network. */
export class Forwarder {
  readonly #network: Network;
  readonly #dial: Dial;
  readonly #bindAddresses: ReadonlySet<string> | undefined;
  readonly #tunnel: SshTunnel | undefined;
  readonly #rows = new Map<string, Row>();

  /** @param bindAddresses host addresses at which ports may be published; undefined: all. @param tunnel undefined: no SSH */
  constructor(network: Network, dial: Dial, bindAddresses?: readonly string[], tunnel?: SshTunnel) {
    this.#network = network;
    this.#dial = dial;
    this.#tunnel = tunnel;
    this.#bindAddresses = bindAddresses && new Set(bindAddresses);
  }

  /** Every row, by local address and then protocol. */
  all(): Exposed[] {
    const key = (row: Exposed): string => `${row.local} ${row.protocol}`;
    return [...this.#rows.values()]
      .map(({ local, remote, protocol }) => ({ local, remote, protocol }))
      .sort((a, b) => (key(a) < key(b) ? -1 : 1));
  }

  /**
   * Publishes `local`, and returns the row as it is: a port of 0 has become a real one. `caller` is the address of the guest that
   * asks, which stands for that of a remote without one.
   * @throws DrydockError ERR_FORWARD_INVALID, ERR_FORWARD_EXISTS, ERR_FORWARD_FORBIDDEN, and what Network.publish() throws
   */
  async expose(wish: Exposed, caller?: string): Promise<Exposed> {
    const key = `${wish.protocol} ${wish.local}`;
    if (this.#rows.has(key))
      throw new DrydockError(
        'ERR_FORWARD_EXISTS',
        `proxy already running for ${wish.protocol} on ${wish.local}`,
      );
    if (this.#rows.size >= EXPOSED_MAX)
      throw new DrydockError(
        'ERR_FORWARD_LIMIT',
        `${EXPOSED_MAX} ports are exposed already. Unexpose some of them first.`,
      );
    // The place is taken before the first await: a second request for it must not slip in between.
    const row: Row = { ...wish, guestPorts: 0, close: async () => {} };
    this.#rows.set(key, row);
    try {
      if (wish.protocol === 'unix') row.close = await this.#exposeSocket(wish);
      else await this.#exposePort(row, wish.protocol, caller);
    } catch (error) {
      this.#rows.delete(key);
      throw error;
    }
    const real = `${row.protocol} ${row.local}`;
    if (real !== key) {
      this.#rows.delete(key);
      this.#rows.set(real, row);
    }
    const { local, remote, protocol } = row;
    return { local, remote, protocol };
  }

  /** As gvproxy has it, an empty address is every one of the host, of both families. */
  async #exposePort(row: Row, protocol: 'tcp' | 'udp', caller?: string): Promise<void> {
    const local = parsePorts(row.local);
    const remote = parsePorts(row.remote, caller ?? '');
    if (local.count !== remote.count || local.count > PORT_RANGE_MAX)
      throw invalid(
        `${row.local} are ${local.count} ports and ${row.remote} are ${remote.count}. Both must be as many, and ${PORT_RANGE_MAX} at most.`,
      );
    if (caller !== undefined) {
      const before = [...this.#rows.values()].reduce((sum, { guestPorts }) => sum + guestPorts, 0);
      if (before + local.count > GUEST_PORTS_MAX)
        throw new DrydockError(
          'ERR_FORWARD_LIMIT',
          `Machines have ${before} ports exposed, and may have ${GUEST_PORTS_MAX}. Unexpose some of them first.`,
        );
      row.guestPorts = local.count;
    }
    const isAny = row.local.startsWith(':');
    const addresses = isAny ? ['0.0.0.0', '::'] : [local.address];
    for (const address of addresses) this.#checkBind(address);
    const ports: PublishedPort[] = [];
    const close = async (): Promise<void> => {
      await Promise.all(ports.map((port) => port.close()));
    };
    try {
      for (const hostAddress of addresses)
        for (let i = 0; i < local.count; i++)
          ports.push(
            await this.#network.publish({
              protocol,
              hostAddress,
              hostPort: ports[i]?.hostPort ?? local.port + i,
              guestAddress: remote.address,
              guestPort: remote.port + i,
            }),
          );
    } catch (error) {
      // A host without IPv6 has one family to listen on.
      const hasNoIpv6 = ports.length === local.count && errorCode(error) === 'ERR_ADDRESS_NOT_AVAILABLE';
      if (!hasNoIpv6) {
        await close();
        throw error;
      }
    }
    if (local.port === 0) row.local = row.local.replace(/0$/, String(ports[0]!.hostPort));
    row.close = close;
  }

  #checkBind(address: string): void {
    if (!this.#bindAddresses) return;
    const wanted = formatAddress(parseAddress(address)!, 0);
    // As VPNKit has it (forward.ml, check_bind_allowed), 0.0.0.0 in the list is every address of IPv4.
    if (this.#bindAddresses.has(wanted) || (!wanted.includes(':') && this.#bindAddresses.has('0.0.0.0')))
      return;
    throw new DrydockError(
      'ERR_FORWARD_FORBIDDEN',
      `Ports may not be published at ${address}, only at ${[...this.#bindAddresses].join(', ')} (--allowed-bind-addresses).`,
    );
  }

  async #exposeSocket(wish: Exposed): Promise<() => Promise<void>> {
    if (this.#tunnel && wish.remote.startsWith('ssh-tunnel://'))
      return this.#tunnel(wish.local, parseSshTarget(wish.remote));
    if (!wish.remote.startsWith('tcp://'))
      throw invalid(`"${wish.remote}" is no remote for a unix socket. Give one like tcp://192.168.127.2:80.`);
    const remote = parseEndpoint(wish.remote.slice('tcp://'.length));
    const connections = new Set<Socket>();
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (client) => {
      connections.add(client);
      client.on('close', () => connections.delete(client));
      void this.#join(client, remote.address, remote.port);
    });
    await listenUnix(server, wish.local);
    return async () => {
      await new Promise((resolve) => {
        server.close(resolve);
        for (const client of connections) client.destroy();
      });
    };
  }

  async #join(client: Socket, address: string, port: number): Promise<void> {
    client.on('error', () => client.destroy());
    try {
      joinStreams(client, await this.#dial(address, port));
    } catch {
      // The guest refused or does not answer: the client sees its connection end.
      client.destroy();
    }
  }

  /**
   * Ends what `expose` made; connections that are open go on where the network lets them. A guest ends what guests have asked
   * for, and nothing of the host's.
   * @throws DrydockError ERR_FORWARD_UNKNOWN
   */
  async unexpose(protocol: ExposeProtocol, local: string, caller?: string): Promise<void> {
    const key = `${protocol} ${local}`;
    const row = this.#rows.get(key);
    if (!row || (caller !== undefined && row.guestPorts === 0))
      throw new DrydockError('ERR_FORWARD_UNKNOWN', 'proxy not found');
    this.#rows.delete(key);
    await row.close();
  }

  /** Ends all. */
  async close(): Promise<void> {
    const rows = [...this.#rows.values()];
    this.#rows.clear();
    await Promise.all(rows.map((row) => row.close()));
  }
}

/** Joins two streams, both ways, with half-close; the failure of one destroys the other. */
export function joinStreams(a: Socket, b: Socket): void {
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    from.pipe(to);
    from.on('error', () => to.destroy());
    from.on('close', () => {
      if (!from.readableEnded) to.destroy();
    });
  }
}

/**
 * Listens on a unix socket that its owner alone may use, or on the socket that came with the process as descriptor N (`fd:N`). A
 * socket that nobody listens on any more is replaced.
 * @throws DrydockError ERR_SOCKET_IN_USE, ERR_SOCKET_FAILED
 */
export async function listenUnix(server: Server, path: string): Promise<void> {
  const inherited = parseDescriptor(path);
  const listen = (): Promise<void> =>
    new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(inherited === undefined ? { path } : { fd: inherited }, () => {
        server.off('error', reject);
        resolve();
      });
    });
  if (inherited !== undefined) {
    await listen().catch((error: unknown) => {
      throw new DrydockError(
        'ERR_SOCKET_FAILED',
        `Descriptor ${inherited} is no socket to listen on: ${errorCode(error) ?? error}.`,
        { cause: error },
      );
    });
    return;
  }
  try {
    await listen().catch(async (error: unknown) => {
      if (errorCode(error) !== 'EADDRINUSE' || !(await isAbandoned(path))) throw error;
      await unlink(path);
      await listen();
    });
    await chmod(path, 0o600);
  } catch (error) {
    if (errorCode(error) === 'EADDRINUSE')
      throw new DrydockError(
        'ERR_SOCKET_IN_USE',
        `Somebody listens on ${path} already. Stop it, or choose another path.`,
        { cause: error },
      );
    throw new DrydockError(
      'ERR_SOCKET_FAILED',
      `Cannot listen on ${path}: ${errorCode(error) ?? error}. Its folder must exist and be writable, and the path be ` +
        'shorter than 108 bytes.',
      { cause: error },
    );
  }
}

/** True for a socket that refuses connections: what a killed process leaves. */
async function isAbandoned(path: string): Promise<boolean> {
  const stat = await lstat(path).catch(() => undefined);
  if (!stat?.isSocket()) return false;
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(false);
    });
    probe.once('error', (error) => resolve(errorCode(error) === 'ECONNREFUSED'));
  });
}
