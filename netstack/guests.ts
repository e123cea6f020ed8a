/**
 * The guests of one network that live in network namespaces: their addresses, TAPs and switch ports. Everything that one
 * attachment takes is given back when a step of it fails.
 */
import { DrydockError, errorCode } from '#common/errors';
import { configureInterface, inNetworkNamespace } from '#common/native/ifconfig';
import { close } from '#common/native/socket';
import { openTap, type Tap } from '#common/native/tap';
import type { Poller } from './host/poller.ts';
import { type Link, VNET_HDR_LEN } from './link/link.ts';
import type { Switch, SwitchPort } from './link/switch.ts';
import { TapLink } from './link/tap.ts';
import type { Commands, WorkerSettings } from './messages.ts';
import type { LeasePool } from './service/lease-pool.ts';
import type { Services } from './service/services.ts';
import type { StackSurface } from './stack.ts';
import { formatIpv4, mapped, putMac } from './wire/address.ts';

/**
 * Frames that wait in a TAP for us. A guest's window of small segments must fit, since what does not is lost: 4 MiB of
 * 1500-byte frames.
 */
const TX_QUEUE_LEN = 4096;

interface Guest {
  readonly address: number;
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
    const { address, mac } = lease;
    try {
      const macBytes = new Uint8Array(6);
      putMac(macBytes, 0, mac);
      const tap = makeInterface(wish.namespacePath, wish.interfaceName, address, macBytes, settings);
      const link = this.#parts.wire(new TapLink(poller, tap, settings.mtuBytes));
      const port = fabric.addPort(link, { mac, ipv4: address, ipv6: undefined });
      stack.bindGuest(mapped(address), macBytes);
      const id = this.#nextId++;
      this.#guests.set(id, { address, port });
      services.setNames(mapped(address), wish.names);
      return { id, address, mac };
    } catch (error) {
      leases.detach(address);
      throw error;
    }
  }

  setNames(id: number, names: string[]): undefined {
    const guest = this.#guests.get(id);
    if (guest) this.#parts.services.setNames(mapped(guest.address), names);
  }

  /** Takes a guest off. Its interface vanishes with the TAP's descriptor. */
  detach(id: number): undefined {
    const guest = this.#guests.get(id);
    if (!guest) return;
    const { stack, services, leases } = this.#parts;
    this.#guests.delete(id);
    const addr = mapped(guest.address);
    services.setNames(addr, []);
    stack.forgetGuest(addr);
    stack.bindGuest(addr, undefined);
    guest.port.close();
    leases.detach(guest.address);
  }
}

/** Makes and configures the TAP in the guest's namespace. */
function makeInterface(
  namespacePath: string,
  name: string,
  address: number,
  mac: Uint8Array,
  settings: WorkerSettings,
): Tap {
  let tap: Tap | undefined;
  try {
    return inNetworkNamespace(namespacePath, () => {
      // A bad wire damages frames, so it must carry real checksums.
      tap = openTap(name, VNET_HDR_LEN, settings.faults === undefined);
      configureInterface({
        name,
        mac,
        mtuBytes: settings.mtuBytes,
        txQueueLen: TX_QUEUE_LEN,
        ipv4: {
          address: formatIpv4(address),
          prefixLength: settings.prefixLength,
          gateway: settings.internal ? undefined : formatIpv4(settings.gateway),
        },
      });
      return tap;
    });
  } catch (error) {
    if (tap) close(tap.fd);
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
        `The network namespace ${namespacePath} does not exist: its process has ended.`,
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
