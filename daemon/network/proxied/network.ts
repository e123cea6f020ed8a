/**
 * A network that jails without a network namespace can join beside the guests of a stack: a jail gets an address there, by which
 * the network's own DNS and the proxies of other jails know it, though nothing answers at it on any wire. Guests of
 * the stack find a jail's name at the gateway, which leads to the host's loopback, where the jail listens.
 */
import { createServer, type Socket } from 'node:net';
import { DrydockError, errorCode } from '#common/errors';
import type { Attachment, AttachOptions, NetworkOptions, PublishedPort, PublishOptions } from '#netstack';
import type { CreateNetwork, EngineNetwork } from '../engine-network.ts';
import { formatAddress, parseSubnet, type Subnet } from '../subnets.ts';
import { connectLoopback, type Membership, type ProxiedJail, type ProxiedJails, refused } from './jails.ts';
import { join } from './join.ts';

/** A jail on the network. */
interface Member {
  jail: ProxiedJail;
  names: string[];
}

/** Who is where, of jails and of the stack's guests. */
interface Directory {
  members: Map<string, Member>;
  guests: Map<string, string[]>;
  hostNames: Record<string, string | string[]>;
}

/** What carries the packets of a network's other guests. */
export interface Stack extends EngineNetwork {
  /** Connects to a guest of the stack. */
  dial(address: string, port: number): Promise<Socket>;
}

/** Networks that jails can join; all else goes to the stack below. */
export function withJails(
  jails: ProxiedJails,
  createStack: (options: NetworkOptions) => Promise<Stack>,
): CreateNetwork {
  return async (options) => new ProxiedNetwork(jails, await createStack(options), options);
}

class ProxiedNetwork implements EngineNetwork {
  readonly subnet: string;
  readonly gateway: string;
  readonly #jails: ProxiedJails;
  readonly #stack: Stack;
  readonly #options: NetworkOptions;
  readonly #directory: Directory = { members: new Map(), guests: new Map(), hostNames: {} };

  constructor(jails: ProxiedJails, stack: Stack, options: NetworkOptions) {
    this.subnet = stack.subnet;
    this.gateway = stack.gateway;
    this.#jails = jails;
    this.#stack = stack;
    this.#options = options;
  }

  async attach(wish: AttachOptions): Promise<Attachment> {
    const jail = wish.pid === undefined ? undefined : this.#jails.find(wish.pid);
    return jail ? this.#join(jail, wish) : this.#attachGuest(wish);
  }

  async #attachGuest(wish: AttachOptions): Promise<Attachment> {
    const { guests } = this.#directory;
    const attachment = await this.#stack.attach(wish);
    guests.set(attachment.address, wish.names);
    return {
      ...attachment,
      setNames: (names) => {
        guests.set(attachment.address, names);
        return attachment.setNames(names);
      },
      detach: () => {
        guests.delete(attachment.address);
        return attachment.detach();
      },
    };
  }

  async #join(jail: ProxiedJail, wish: AttachOptions): Promise<Attachment> {
    const { members } = this.#directory;
    const { prefix } = this.#subnet();
    const address = wish.address ?? (await this.#freeAddress());
    if (members.has(address))
      throw new DrydockError('ERR_ADDRESS_IN_USE', `${address} is another container's on this network`);
    const member: Member = { jail, names: wish.names };
    members.set(address, member);
    const membership = this.#membership();
    jail.memberships.add(membership);
    await this.#tellNames();
    return {
      interfaceName: wish.interfaceName,
      address,
      prefixLength: prefix,
      gateway: this.gateway,
      mac: '',
      setNames: (names) => {
        member.names = names;
        return this.#tellNames();
      },
      // A jail asks the resolvers of the host.
      setResolving: async () => {},
      detach: () => {
        jail.memberships.delete(membership);
        members.delete(address);
        return this.#tellNames();
      },
    };
  }

  #subnet(): Subnet {
    const { subnet, name } = this.#options;
    if (subnet !== undefined) return parseSubnet(subnet);
    throw new DrydockError(
      'ERR_NOT_IMPLEMENTED',
      `network ${name} has no IPv4, by which containers without a network namespace are known: give it some`,
    );
  }

  /** From the top of the subnet, since the stack gives addresses from below. */
  async #freeAddress(): Promise<string> {
    const { members, guests } = this.#directory;
    const taken = new Set([
      ...[this.gateway, ...members.keys(), ...guests.keys()],
      ...(await this.#stack.leases()).map(({ address }) => address),
    ]);
    const { base, prefix } = this.#subnet();
    for (let address = base + 2 ** (32 - prefix) - 2; address > base; address--)
      if (!taken.has(formatAddress(address))) return formatAddress(address);
    throw new DrydockError('ERR_FORBIDDEN', `network ${this.#options.name} has no address left`);
  }

  /** What a jail can do on this network. */
  #membership(): Membership {
    const { internal = false, isolated = false } = this.#options;
    const { members, guests } = this.#directory;
    return {
      internal,
      lookup: (name) => {
        const at = (known: string[]): boolean => known.some((one) => one.toLowerCase() === name);
        const found = [...members].filter(([, { names }]) => at(names)).map(([address]) => address);
        found.push(...[...guests].filter(([, names]) => at(names)).map(([address]) => address));
        if (found.length > 0) return found;
        const host = this.#directory.hostNames[name];
        return host === undefined ? undefined : [host].flat();
      },
      dial: (address, port) => {
        if (address === this.gateway)
          return internal
            ? Promise.reject(refused('an internal network does not lead to the host'))
            : connectLoopback(port);
        const member = members.get(address);
        if (!member && !guests.has(address)) return undefined;
        if (isolated) return Promise.reject(refused('containers of this network do not reach each other'));
        return member ? member.jail.enter(port) : this.#stack.dial(address, port);
      },
    };
  }

  async publish(wish: PublishOptions): Promise<PublishedPort> {
    const member = this.#directory.members.get(wish.guestAddress);
    return member ? publishJail(member.jail, wish) : this.#stack.publish(wish);
  }

  async setHostNames(names: Record<string, string | string[]>): Promise<void> {
    this.#directory.hostNames = names;
    await this.#tellNames();
  }

  /** Guests of the stack find the names of jails at the gateway. */
  #tellNames(): Promise<void> {
    const { members, hostNames } = this.#directory;
    const names = [...members.values()].flatMap((member) => member.names);
    return this.#stack.setHostNames({
      ...Object.fromEntries(names.map((name) => [name, this.gateway])),
      ...hostNames,
    });
  }

  flows: EngineNetwork['flows'] = () => this.#stack.flows();
  leases: EngineNetwork['leases'] = () => this.#stack.leases();
  dnsLog: EngineNetwork['dnsLog'] = () => this.#stack.dnsLog();
  denied: EngineNetwork['denied'] = () => this.#stack.denied();
  captureLive: EngineNetwork['captureLive'] = (options) => this.#stack.captureLive(options);
  close: EngineNetwork['close'] = () => this.#stack.close();
}

/**
 * Listens in place of a jail. At the very port that the jail listens on there is nothing to do: it is the host's.
 * @throws DrydockError ERR_NOT_IMPLEMENTED, ERR_PORT_IN_USE, ERR_PORT_PRIVILEGED, ERR_ADDRESS_NOT_AVAILABLE
 */
async function publishJail(jail: ProxiedJail, wish: PublishOptions): Promise<PublishedPort> {
  const { protocol, hostAddress, hostPort, guestPort } = wish;
  if (protocol === 'udp')
    throw new DrydockError(
      'ERR_NOT_IMPLEMENTED',
      'a container without a network of its own has no UDP: publish TCP ports only',
    );
  if (hostPort === guestPort) {
    if (hostAddress === '0.0.0.0' || hostAddress === '::') return { ...wish, close: async () => {} };
    throw new DrydockError(
      'ERR_NOT_IMPLEMENTED',
      `a container without a network of its own listens on port ${guestPort} of the host itself: publish it at ${hostAddress} by another number`,
    );
  }
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (client) => {
    sockets.add(client);
    client.once('close', () => sockets.delete(client));
    client.on('error', () => client.destroy());
    jail.enter(guestPort).then(
      (target) => join(client, target),
      () => client.destroy(),
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(listenError(error, `${hostAddress}:${hostPort}`)));
    // The other family has a listener of its own.
    server.listen({ host: hostAddress, port: hostPort, ipv6Only: true }, resolve);
  });
  const address = server.address();
  return {
    ...wish,
    hostPort: typeof address === 'object' && address ? address.port : hostPort,
    close: () => {
      for (const socket of sockets) socket.destroy();
      return new Promise((closed) => server.close(() => closed()));
    },
  };
}

const LISTEN_ERRORS: Readonly<Record<string, string>> = {
  EADDRINUSE: 'ERR_PORT_IN_USE',
  EACCES: 'ERR_PORT_PRIVILEGED',
  EADDRNOTAVAIL: 'ERR_ADDRESS_NOT_AVAILABLE',
  EAFNOSUPPORT: 'ERR_ADDRESS_NOT_AVAILABLE',
};

function listenError(error: unknown, where: string): unknown {
  const code = LISTEN_ERRORS[errorCode(error) ?? ''];
  return code ? new DrydockError(code, `${where} cannot be listened on (${errorCode(error)})`) : error;
}
