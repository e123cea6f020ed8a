/**
 * Networks for jails that have no network namespace, as on Darwin, where there is none, and with the runtime `plain`.
 *
 * Such a jail may connect to one port of the host's loopback, where it has a proxy of its own (proxy.ts), and to the ports that it
 * declares; its platform keeps it to that (a seatbelt profile, Landlock). So where it may go is decided here, by the networks
 * that it is on: to their containers by name and address, to the host by its names, to the outside unless they are all
 * internal. It listens on the host's own ports, which is what `-p` and its neighbours are led to.
 *
 * What follows from that is told in the reports of its runtime: programs must know proxies, there is no UDP, and a port can be
 * listened on by one jail at a time.
 */
import { lookup } from 'node:dns/promises';
import { BlockList, connect, isIP, isIPv6, type Socket } from 'node:net';
import { DrydockError, errorMessage } from '#common/errors';
import type { Rng } from '#common/rng';
import type { JailPort } from '../../runtime/runtime.ts';
import { serveProxy } from './proxy.ts';

const SECRET_BYTES = 16;
/** This machine itself, whatever the notation; addresses of IPv4 in those of IPv6 are looked up as the former. */
const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4');
LOOPBACK.addSubnet('0.0.0.0', 8, 'ipv4');
LOOPBACK.addSubnet('::', 127, 'ipv6');

/** What a jail has of one network. */
export interface Membership {
  /** Whether the network leads outside. */
  readonly internal: boolean;
  /** Addresses of a name on it; undefined where it is not known. */
  lookup(name: string): string[] | undefined;
  /** Connects to an address of it; undefined for an address that is none of its. */
  dial(address: string, port: number): Promise<Socket> | undefined;
}

/** What a runtime gives to a jail's processes. */
export interface JailAccess {
  /** Of the jail's proxy, on 127.0.0.1. */
  readonly proxyPort: number;
  /** Where its look-ups go to, on the host. */
  readonly namesPath: string | undefined;
  /** Variables by which programs find both. */
  readonly environment: readonly string[];
  /** Says by which process networks know the jail. */
  knownAs(pid: number): void;
  close(): Promise<void>;
}

/** A socket to which a jail's look-ups of names are led. */
export interface NamesSocket {
  /** Where it is made. */
  path: string;
  /** Where the jail has it. */
  seenAs: string;
  /** Takes away what was made on the way to it. */
  forget(): void;
}

/** Serves names on a socket that Darwin's look-ups go to. */
export type ServeNames = (
  path: string,
  resolve: (name: string) => Promise<string[]>,
) => Promise<{ close(): Promise<void> }>;

/** A refusal by the jail's networks. */
export function refused(what: string): DrydockError {
  return new DrydockError('ERR_PROXY_REFUSED', what);
}

/** Connects to the first of several addresses that answers. @throws what the last of them said */
export async function connectAny(addresses: readonly string[], port: number): Promise<Socket> {
  let failure: unknown = refused('there is no address to connect to');
  for (const host of addresses) {
    try {
      return await connected(connect({ host, port, allowHalfOpen: true }));
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

function connected(socket: Socket): Promise<Socket> {
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      resolve(socket);
    });
  });
}

/** A port that a program of this machine listens on for itself, in either family. */
export function connectLoopback(port: number): Promise<Socket> {
  return connectAny(['127.0.0.1', '::1'], port);
}

/** One jail. */
export class ProxiedJail {
  readonly memberships: Set<Membership> = new Set();
  readonly #ports: ReadonlySet<number>;

  constructor(ports: readonly JailPort[]) {
    this.#ports = new Set(ports.filter(({ protocol }) => protocol === 'tcp').map(({ port }) => port));
  }

  /** Connects into it. @throws DrydockError ERR_PROXY_REFUSED for a port that it does not declare, which is another's */
  enter(port: number): Promise<Socket> {
    if (!this.#ports.has(port))
      throw refused(`port ${port} is not one of the container's: give it EXPOSE, --expose or -p`);
    return connectLoopback(port);
  }

  /** Connects out of it. @throws DrydockError ERR_PROXY_REFUSED, or what the system says */
  async dial(host: string, port: number): Promise<Socket> {
    const known = isIP(host) > 0 ? [host] : this.#known(host);
    for (const address of known ?? [])
      for (const membership of this.memberships) {
        const dialed = membership.dial(address, port);
        if (dialed) return dialed;
      }
    this.#mustLeadOutside(host);
    const addresses = known ?? (await lookup(host, { all: true })).map(({ address }) => address);
    // A name of somebody else's choice must not lead to what the host keeps for itself.
    if (addresses.some((address) => LOOPBACK.check(address, isIPv6(address) ? 'ipv6' : 'ipv4')))
      throw refused(`${host} is this machine itself: its names for containers are host.docker.internal`);
    return connectAny(addresses, port);
  }

  /** Addresses of a name: of its networks, then of the outside. */
  async resolve(name: string): Promise<string[]> {
    const known = this.#known(name);
    if (known) return known;
    this.#mustLeadOutside(name);
    return (await lookup(name, { all: true })).map(({ address }) => address);
  }

  #known(name: string): string[] | undefined {
    const plain = name.toLowerCase().replace(/\.$/, '');
    // What is known on several is taken from one that leads further.
    const all = [...this.memberships].sort((a, b) => Number(a.internal) - Number(b.internal));
    for (const membership of all) {
      const found = membership.lookup(plain);
      if (found) return found;
    }
    return undefined;
  }

  #mustLeadOutside(what: string): void {
    if ([...this.memberships].every(({ internal }) => internal))
      throw refused(`${what} is outside, and none of the container's networks leads there`);
  }
}

/** All of one daemon. */
export class ProxiedJails {
  readonly #rng: Rng;
  readonly #serveNames: ServeNames | undefined;
  readonly #byPid = new Map<number, ProxiedJail>();

  /** @param serveNames where look-ups can be led to a socket */
  constructor(rng: Rng, serveNames?: ServeNames) {
    this.#rng = rng;
    this.#serveNames = serveNames;
  }

  /** The jail of a process; undefined for one that has a namespace of its own. */
  find(pid: number): ProxiedJail | undefined {
    return this.#byPid.get(pid);
  }

  /**
   * Opens a jail's proxy, before anything runs in it.
   * @param socket where its look-ups can be led to
   * @throws DrydockError
   */
  async open(ports: readonly JailPort[], socket?: NamesSocket): Promise<JailAccess> {
    const jail = new ProxiedJail(ports);
    const secret = Buffer.from(this.#rng.fill(new Uint8Array(SECRET_BYTES))).toString('hex');
    const proxy = await serveProxy(secret, (host, port) => jail.dial(host, port));
    const names = await this.#openNames(jail, socket?.path).catch(async (error: unknown) => {
      await proxy.close();
      socket?.forget();
      throw new DrydockError('ERR_JAIL', `names cannot be served to the container: ${errorMessage(error)}`);
    });
    let known: number | undefined;
    return {
      proxyPort: proxy.port,
      namesPath: names && socket?.path,
      environment: [
        ...proxyEnvironment(secret, proxy.port),
        ...(names && socket ? [`DNSSD_UDS_PATH=${socket.seenAs}`] : []),
      ],
      knownAs: (pid) => {
        known = pid;
        this.#byPid.set(pid, jail);
      },
      close: async () => {
        if (known !== undefined) this.#byPid.delete(known);
        await Promise.all([proxy.close(), names?.close()]);
        socket?.forget();
      },
    };
  }

  async #openNames(jail: ProxiedJail, path: string | undefined) {
    if (path === undefined || !this.#serveNames) return undefined;
    return this.#serveNames(path, (name) => jail.resolve(name));
  }
}

/** As curl and most libraries read them; in both cases of letters, since some know only one. */
function proxyEnvironment(secret: string, port: number): string[] {
  const at = `jail:${secret}@127.0.0.1:${port}`;
  const http = ['HTTP_PROXY', 'HTTPS_PROXY'].map((name) => `${name}=http://${at}`);
  const all = [...http, `ALL_PROXY=socks5h://${at}`, 'NO_PROXY=localhost,127.0.0.1,::1'];
  return [...all, ...all.map((entry) => entry.replace(/^\w+/, (name) => name.toLowerCase()))];
}
