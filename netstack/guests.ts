/**
 * The guests of one network that live in network namespaces: their addresses, TAPs and switch ports. Everything that one
 * attachment takes is given back when a step of it fails.
 */
import { DrydockError, errorCode } from '#common/errors';
import type { InterfaceConfig } from '#common/native/ifconfig';
import type { Tap } from '#common/native/tap';
import type { Poller } from './host/poller.ts';
import { makeTapIn } from './interface.ts';
import { type Link, VNET_HDR_LEN } from './link/link.ts';
import type { Switch, SwitchPort } from './link/switch.ts';
import { TapLink } from './link/tap.ts';
import type { Commands, WorkerSettings } from './messages.ts';
import { guestIpv6 } from './plan.ts';
import type { LeasePool } from './service/lease-pool.ts';
import type { Services } from './service/services.ts';
import type { StackSurface } from './stack.ts';
import { formatAddress, formatIpv4, mapped, putMac, sameAddress } from './wire/address.ts';

/**
 * Frames that wait in a TAP for us. A guest's window of small segments must fit, since what does not is lost: 4 MiB of
 * 1500-byte frames.
 */
const TX_QUEUE_LEN = 4096;

interface Guest {
  /** Of the pool: its own address, or only its number where guests have no IPv4. */
  readonly leased: number;
  /** Its addresses, 16 bytes each. */
  readonly addrs: readonly Uint8Array[];
  readonly port: SwitchPort;
}

/** What {@link Guests} works with. */
export interface GuestsParts {
  settings: WorkerSettings;
  poller: Poller;
  fabric: Switch;
  stack: StackSurface;
  services: Services;
  leases: LeasePool;
  /** Puts before a link what stands between it and the switch. */
  wire: (link: Link) => Link;
  now: () => number;
}

/** Attaches and detaches guests. */
export class Guests {
  readonly #parts: GuestsParts;
  readonly #guests = new Map<number, Guest>();
  #nextId = 1;

  constructor(parts: GuestsParts) {
    this.#parts = parts;
  }

  get size(): number {
    return this.#guests.size;
  }

  /** @throws DrydockError ERR_ADDRESS_*, ERR_GUEST_GONE, ERR_INTERFACE_EXISTS, ERR_TAP_UNAVAILABLE */
  attach(wish: Commands['attach']['take']): Commands['attach']['give'] {
    const { leases, stack, services, fabric, poller, settings, now } = this.#parts;
    const lease = leases.attach(now(), {
      ...(wish.mac === undefined ? {} : { mac: wish.mac }),
      ...(wish.address === undefined ? {} : { wanted: wish.address }),
    });
    const { address: leased, mac } = lease;
    const address = settings.guestsHaveIpv4 ? leased : undefined;
    try {
      const address6 = this.#ipv6Of(wish.address6, leased);
      const macBytes = new Uint8Array(6);
      putMac(macBytes, 0, mac);
      const tap = makeInterface(wish, address, address6, macBytes, settings);
      const link = this.#parts.wire(new TapLink(poller, tap, settings.mtuBytes));
      const port = fabric.addPort(link, {
        mac,
        ipv4: address,
        linkLocal: wish.linkLocal,
        ipv6: address6,
      });
      const addrs = [...(address === undefined ? [] : [mapped(address)]), ...(address6 ? [address6] : [])];
      const id = this.#nextId++;
      this.#guests.set(id, { leased, addrs, port });
      for (const addr of addrs) {
        stack.bindGuest(addr, macBytes);
        services.setNames(addr, wish.names);
      }
      return { id, address, address6, mac };
    } catch (error) {
      leases.detach(leased);
      throw error;
    }
  }

  /** The guest's IPv6 address: the wanted one, or the one that goes with what it has leased. */
  #ipv6Of(wanted: Uint8Array | undefined, leased: number): Uint8Array | undefined {
    const { settings } = this.#parts;
    const chosen = wanted ?? guestIpv6(settings, leased);
    if (!chosen || !settings.ipv6) return undefined;
    const holders = [settings.ipv6.address, ...[...this.#guests.values()].flatMap((guest) => guest.addrs)];
    if (holders.some((holder) => sameAddress(holder, 0, chosen, 0)))
      throw new DrydockError(
        'ERR_ADDRESS_IN_USE',
        `The address ${formatAddress(chosen, 0)} is in use on this network. Choose another, or none.`,
      );
    return chosen;
  }

  setNames(id: number, names: string[]): undefined {
    const guest = this.#guests.get(id);
    for (const addr of guest?.addrs ?? []) this.#parts.services.setNames(addr, names);
  }

  setResolving(id: number, view: Omit<Commands['setResolving']['take'], 'id'>): undefined {
    for (const addr of this.#guests.get(id)?.addrs ?? []) this.#parts.services.setResolving(addr, view);
  }

  /** Takes a guest off. Its interface vanishes with the TAP's descriptor. */
  detach(id: number): undefined {
    const guest = this.#guests.get(id);
    if (!guest) return;
    const { stack, services, leases } = this.#parts;
    this.#guests.delete(id);
    for (const addr of guest.addrs) {
      services.setNames(addr, []);
      services.setResolving(addr, undefined);
      stack.forgetGuest(addr);
    }
    guest.port.close();
    leases.detach(guest.leased);
  }
}

/** Makes and configures the TAP in the guest's namespace. */
function makeInterface(
  { namespacePath, interfaceName: name, linkLocal, metric, settings: kernel }: Commands['attach']['take'],
  address: number | undefined,
  address6: Uint8Array | undefined,
  mac: Uint8Array,
  settings: WorkerSettings,
): Tap {
  const config: InterfaceConfig = {
    name,
    mac,
    mtuBytes: settings.mtuBytes,
    txQueueLen: TX_QUEUE_LEN,
    linkLocal: linkLocal.map(formatIpv4),
    ...(metric !== undefined && { metric }),
    ...(kernel && { settings: kernel }),
    ...(address !== undefined && {
      ipv4: {
        address: formatIpv4(address),
        prefixLength: settings.prefixLength,
        gateway: settings.internal ? undefined : formatIpv4(settings.gateway),
      },
    }),
    ...(settings.ipv6 && address6
      ? {
          ipv6: {
            address: address6,
            prefixLength: settings.ipv6.prefixLength,
            gateway: settings.internal ? undefined : settings.ipv6.address,
          },
        }
      : {}),
  };
  try {
    // A bad wire damages frames, so it must carry real checksums.
    const offload = settings.faults === undefined;
    return makeTapIn({ namespacePath, config, headerBytes: VNET_HDR_LEN, offload });
  } catch (error) {
    throw explain(error, namespacePath, name);
  }
}

function explain(error: unknown, namespacePath: string, name: string): unknown {
  const message = (error as Error).message;
  switch (errorCode(error)) {
    case 'ENOENT':
      if (message.includes('/dev/net/tun'))
        return new DrydockError(
          'ERR_TAP_UNAVAILABLE',
          'There is no /dev/net/tun, through which guests are attached. Load it with `modprobe tun`.',
          { cause: error },
        );
      return new DrydockError(
        'ERR_GUEST_GONE',
        `The network namespace ${namespacePath} does not exist. Has its process ended? \`ip netns\` lists those with a name.`,
        { cause: error },
      );
    case 'EBUSY':
      return new DrydockError(
        'ERR_INTERFACE_EXISTS',
        `The namespace has an interface ${name} already. Choose another name.`,
        { cause: error },
      );
    case 'EPERM':
    case 'EACCES':
      return new DrydockError(
        'ERR_TAP_UNAVAILABLE',
        `Attaching a guest is not permitted (${message}). Run as root, with CAP_NET_ADMIN and CAP_SYS_ADMIN.`,
        { cause: error },
      );
    default:
      return error;
  }
}
