/**
 * Who holds which IPv4 address of a network: one table for containers that are attached (their address is ours to
 * give, and never expires) and for guests that ask by DHCP. Because it is one table, neither can be given what the other
 * has.
 *
 * A DHCP lease that ran out or was released is remembered, so that a returning guest gets its old address
 * (RFC 2131 section 4.3.1), until the address is needed. An address that a client declined stays aside for a while. A
 * guest may invent hardware addresses at will; so dynamic leases have a maximum of their own, which leaves room for what the
 * operator attaches, and a name belongs to its first holder.
 *
 * Time is the monotonic `now` of each call; {@link LeasePool.snapshot} turns it into wall time for keeping.
 */
import { DrydockError } from '#common/errors';
import { formatIpv4, formatMac, parseIpv4, parseMac } from '../wire/address.ts';

/** How long an offered address is held for the client's request. */
export const OFFER_HOLD_MS = 60_000;
/** How long a declined address is not given to anybody (RFC 2131 section 4.3.3). */
export const DECLINE_HOLD_MS = 600_000;
/** Most addresses that DHCP may hold; half of the pool at most. */
export const DYNAMIC_LEASES_MAX = 4096;

/**
 * reserved: set aside by configuration, its client has not come. attached: given to a container. offered, bound: by
 * DHCP. idle: ran out or released, remembered. declined: somebody else answers at it.
 */
export type LeaseState = 'reserved' | 'attached' | 'offered' | 'bound' | 'idle' | 'declined';

/** One row. */
export interface Lease {
  readonly address: number;
  /** 48-bit number; 0 for a declined address. */
  readonly mac: number;
  /** Option 61 in hexadecimal, when the client gave one. */
  readonly clientId: string | undefined;
  /** Host name, one label in lower case. */
  readonly name: string | undefined;
  readonly state: LeaseState;
  /** Fixed by configuration: it goes to no other client, and never ends. */
  readonly fixed: boolean;
  /** Monotonic time; Infinity for what does not expire. */
  readonly expiresAt: number;
}

type Row = { -readonly [K in keyof Lease]: Lease[K] };

/** Who asks for an address. A client is known by its identifier if it gives one, else by its MAC. */
export interface LeaseClient {
  mac: number;
  clientId?: string;
}

/** A lease as kept between runs. */
export interface LeaseRecord {
  address: string;
  mac: string;
  clientId?: string;
  name?: string;
  /** Milliseconds since the Unix epoch. */
  expiresAtMs: number;
}

/** How a pool is made. */
export interface LeasePoolOptions {
  /** The subnet, whose first and last address are not given out (RFC 919) unless it is a /31 or /32. */
  network: number;
  prefixLength: number;
  /** First and last address for those without a wish; default: the whole subnet. */
  first?: number;
  last?: number;
  /** Addresses in use by the stack itself. */
  excluded?: readonly number[];
  /** Called after each change that is worth keeping. */
  changed?: () => void;
}

/** The MAC address that docker makes from an address: 02:42 and its four bytes. */
export function dockerMac(address: number): number {
  return 0x0242 * 0x1_0000_0000 + address;
}

function clientKey(client: LeaseClient): string {
  return client.clientId === undefined ? `mac ${client.mac}` : `id ${client.clientId}`;
}

/** A host name that can be a DNS label, from what a guest calls itself; undefined when nothing of it can. */
export function hostLabel(text: string | undefined): string | undefined {
  const label = text?.split('.', 1)[0]?.toLowerCase();
  return label && /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(label) ? label : undefined;
}

/** The addresses of one network. */
export class LeasePool {
  readonly #first: number;
  readonly #last: number;
  readonly #network: number;
  readonly #broadcast: number;
  readonly #hasEdges: boolean;
  readonly #excluded: ReadonlySet<number>;
  readonly #changed: () => void;
  readonly #rows = new Map<number, Row>();
  readonly #byClient = new Map<string, Row>();
  readonly #byName = new Map<string, Row>();
  #dynamicCount = 0;
  readonly #dynamicMax: number;

  constructor(options: LeasePoolOptions) {
    const size = 2 ** (32 - options.prefixLength);
    this.#network = options.network - (options.network % size);
    this.#broadcast = this.#network + size - 1;
    this.#hasEdges = options.prefixLength < 31;
    const edge = this.#hasEdges ? 1 : 0;
    this.#first = options.first ?? this.#network + edge;
    this.#last = options.last ?? this.#broadcast - edge;
    if (this.#first > this.#last || !this.#usable(this.#first) || !this.#usable(this.#last))
      throw new DrydockError(
        'ERR_INVALID_ADDRESS_POOL',
        `The address pool ${formatIpv4(this.#first)}-${formatIpv4(this.#last)} is not a range within ` +
          `${formatIpv4(this.#network)}/${options.prefixLength}. Give a first and a last address of that subnet.`,
      );
    this.#excluded = new Set(options.excluded);
    this.#changed = options.changed ?? (() => {});
    this.#dynamicMax = Math.min(
      DYNAMIC_LEASES_MAX,
      Math.max(1, Math.ceil((this.#last - this.#first + 1) / 2)),
    );
  }

  /** Addresses held by DHCP now, remembered ones included. */
  get dynamicCount(): number {
    return this.#dynamicCount;
  }

  /** True for an address of the subnet that a host can have. */
  #usable(address: number): boolean {
    if (address < this.#network || address > this.#broadcast) return false;
    return !this.#hasEdges || (address !== this.#network && address !== this.#broadcast);
  }

  /** True when `address` belongs to the subnet. */
  contains(address: number): boolean {
    return address >= this.#network && address <= this.#broadcast;
  }

  /**
   * Sets an address aside for one client (a static lease).
   * @throws DrydockError ERR_ADDRESS_INVALID, ERR_ADDRESS_IN_USE
   */
  reserve(address: number, client: LeaseClient, name?: string): Lease {
    this.#checkFree(address, client.mac);
    return this.#put({
      address,
      mac: client.mac,
      clientId: client.clientId,
      name,
      state: 'reserved',
      fixed: true,
      expiresAt: Number.POSITIVE_INFINITY,
    });
  }

  /**
   * Gives an address to a container. Without `mac` it gets docker's for the address; without `wanted` the lowest free one.
   * @throws DrydockError ERR_ADDRESS_INVALID, ERR_ADDRESS_IN_USE, ERR_ADDRESS_POOL_EXHAUSTED
   */
  attach(now: number, request: { mac?: number; wanted?: number; name?: string } = {}): Lease {
    this.expire(now);
    const reserved = request.mac === undefined ? undefined : this.#byClient.get(`mac ${request.mac}`);
    let address = request.wanted ?? (reserved?.fixed ? reserved.address : undefined);
    if (address === undefined) address = this.#free();
    else this.#checkFree(address, request.mac);
    if (address === undefined)
      throw new DrydockError(
        'ERR_ADDRESS_POOL_EXHAUSTED',
        `No address is free in ${formatIpv4(this.#first)}-${formatIpv4(this.#last)}. Detach a guest or use a larger subnet.`,
      );
    return this.#put({
      address,
      mac: request.mac ?? dockerMac(address),
      clientId: undefined,
      name: hostLabel(request.name),
      state: 'attached',
      fixed: this.#rows.get(address)?.fixed ?? false,
      expiresAt: Number.POSITIVE_INFINITY,
    });
  }

  /** Takes a container's address back. */
  detach(address: number): void {
    const row = this.#rows.get(address);
    if (row?.state !== 'attached') return;
    if (row.fixed) this.#put({ ...row, state: 'reserved' });
    else this.#remove(row);
    this.#changed();
  }

  #checkFree(address: number, mac: number | undefined): void {
    const text = formatIpv4(address);
    if (!this.#usable(address))
      throw new DrydockError(
        'ERR_ADDRESS_INVALID',
        `${text} is not a host's address in the subnet of this network. Choose another address.`,
      );
    const row = this.#rows.get(address);
    const taken = row && row.state !== 'idle' && !(row.state === 'reserved' && row.mac === mac);
    if (taken || this.#excluded.has(address))
      throw new DrydockError(
        'ERR_ADDRESS_IN_USE',
        `${text} is already in use on this network. Choose another address, or leave the choice to the pool.`,
      );
  }

  /** The lease of a client, whatever its state. A static lease by MAC counts for a client that sends an identifier. */
  find(client: LeaseClient): Lease | undefined {
    return this.#byClient.get(clientKey(client)) ?? this.#byMac(client);
  }

  #byMac(client: LeaseClient): Row | undefined {
    const row = this.#byClient.get(`mac ${client.mac}`);
    return row?.fixed || row?.state === 'attached' ? row : undefined;
  }

  /** The row of an address. */
  get(address: number): Lease | undefined {
    return this.#rows.get(address);
  }

  /**
   * Holds an address for a client until it asks for it: its own one, else the wanted one if free, else any.
   * Undefined when there is none.
   */
  offer(now: number, client: LeaseClient, wanted?: number): Lease | undefined {
    this.expire(now);
    const own = this.find(client);
    if (own && own.state !== 'declined') {
      if (own.state === 'idle')
        return this.#put({ ...own, mac: client.mac, state: 'offered', expiresAt: now + OFFER_HOLD_MS });
      return own;
    }
    const address = wanted !== undefined && this.#grantable(wanted) ? wanted : this.#freeDynamic();
    if (address === undefined) return undefined;
    return this.#put({
      address,
      mac: client.mac,
      clientId: client.clientId,
      name: undefined,
      state: 'offered',
      fixed: false,
      expiresAt: now + OFFER_HOLD_MS,
    });
  }

  /**
   * Binds `address` to a client for `durationMs`. Undefined when it is another's, or not to be given. An attached or
   * reserved client's lease keeps its state and end.
   */
  bind(
    now: number,
    client: LeaseClient,
    address: number,
    durationMs: number,
    name?: string,
  ): Lease | undefined {
    this.expire(now);
    const own = this.find(client);
    if (own?.address === address && own.state !== 'declined') {
      if (own.fixed || own.state === 'attached') return own;
      return this.#bound(own, now, client, address, durationMs, name);
    }
    if (own?.fixed || own?.state === 'attached' || !this.#grantable(address)) return undefined;
    return this.#bound(undefined, now, client, address, durationMs, name);
  }

  #bound(
    before: Lease | undefined,
    now: number,
    client: LeaseClient,
    address: number,
    durationMs: number,
    name: string | undefined,
  ): Lease {
    const label = hostLabel(name) ?? before?.name;
    const holder = label === undefined ? undefined : this.#byName.get(label);
    const lease = this.#put({
      address,
      mac: client.mac,
      clientId: client.clientId,
      name: holder && holder.address !== address && holdsName(holder) ? undefined : label,
      state: 'bound',
      fixed: false,
      expiresAt: now + durationMs,
    });
    this.#changed();
    return lease;
  }

  /** A client gives its address back; it is remembered. False when the lease is not this client's. */
  release(client: LeaseClient, address: number): boolean {
    const row = this.#rows.get(address);
    if (!row || this.find(client) !== row || row.fixed || row.state === 'attached') return false;
    row.state = 'idle';
    row.expiresAt = Number.POSITIVE_INFINITY;
    this.#changed();
    return true;
  }

  /** A client found its address in use: it goes to nobody for a while. False when the lease is not this client's. */
  decline(now: number, client: LeaseClient, address: number): boolean {
    const row = this.#rows.get(address);
    if (!row || this.find(client) !== row || row.fixed || row.state === 'attached') return false;
    this.#put({
      address,
      mac: 0,
      clientId: undefined,
      name: undefined,
      state: 'declined',
      fixed: false,
      expiresAt: now + DECLINE_HOLD_MS,
    });
    return true;
  }

  /** Ends what has run out. Called by every operation that depends on it. */
  expire(now: number): void {
    for (const row of this.#rows.values()) {
      if (row.expiresAt > now) continue;
      if (row.state === 'bound') {
        row.state = 'idle';
        row.expiresAt = Number.POSITIVE_INFINITY;
      } else this.#remove(row);
    }
  }

  /** Every row that is in force, by address. */
  leases(now: number): Lease[] {
    this.expire(now);
    return [...this.#rows.values()]
      .filter((row) => row.state !== 'idle' && row.state !== 'declined')
      .sort((a, b) => a.address - b.address);
  }

  /** The address of a guest that goes by this name now. */
  addressOf(now: number, name: string): number | undefined {
    const row = this.#byName.get(name);
    return row && this.#active(row, now) ? row.address : undefined;
  }

  /** The name of the guest at this address now. */
  nameOf(now: number, address: number): string | undefined {
    const row = this.#rows.get(address);
    return row && this.#active(row, now) ? row.name : undefined;
  }

  #active(row: Row, now: number): boolean {
    return holdsName(row) && row.expiresAt > now;
  }

  /** What is worth keeping: DHCP's leases in force. */
  snapshot(now: number, wallMs: number): LeaseRecord[] {
    return this.leases(now)
      .filter((row) => row.state === 'bound')
      .map((row) => ({
        address: formatIpv4(row.address),
        mac: formatMac(row.mac),
        ...(row.clientId !== undefined && { clientId: row.clientId }),
        ...(row.name !== undefined && { name: row.name }),
        expiresAtMs: wallMs + row.expiresAt - now,
      }));
  }

  /** Takes kept leases back; those that ran out, or do not fit this pool any more, are left out. Returns how many it took. */
  restore(records: readonly LeaseRecord[], now: number, wallMs: number): number {
    let count = 0;
    for (const record of records) {
      const address = parseIpv4(String(record.address));
      const mac = parseMac(String(record.mac));
      const durationMs = record.expiresAtMs - wallMs;
      if (address === undefined || mac === undefined || !(durationMs > 0)) continue;
      const client: LeaseClient =
        record.clientId === undefined ? { mac } : { mac, clientId: String(record.clientId) };
      if (this.bind(now, client, address, durationMs, record.name)) count++;
    }
    return count;
  }

  /** True when DHCP may give `address` to somebody new. */
  #grantable(address: number): boolean {
    if (address < this.#first || address > this.#last || this.#excluded.has(address)) return false;
    const row = this.#rows.get(address);
    if (row) return row.state === 'idle';
    return this.#dynamicCount < this.#dynamicMax;
  }

  #freeDynamic(): number | undefined {
    return this.#dynamicCount < this.#dynamicMax ? this.#free() : this.#oldestIdle();
  }

  /** The lowest address that nobody has had; else one that was remembered for somebody who is not here. */
  #free(): number | undefined {
    // Ends after at most one step more than there are rows and exclusions.
    for (let address = this.#first; address <= this.#last; address++)
      if (!this.#rows.has(address) && !this.#excluded.has(address)) return address;
    return this.#oldestIdle();
  }

  #oldestIdle(): number | undefined {
    for (const row of this.#rows.values()) if (row.state === 'idle') return row.address;
    return undefined;
  }

  /** Writes a row and its indexes; the newest row is the last of the table. */
  #put(row: Row): Row {
    const before = this.#rows.get(row.address);
    if (before) this.#remove(before);
    const key = row.state === 'declined' ? undefined : clientKey(row as LeaseClient);
    if (key !== undefined) {
      const other = this.#byClient.get(key);
      if (other && !other.fixed && other.state !== 'attached') this.#remove(other);
      this.#byClient.set(key, row);
    }
    if (row.name !== undefined) {
      const other = this.#byName.get(row.name);
      if (!other || !holdsName(other)) this.#byName.set(row.name, row);
    }
    this.#rows.set(row.address, row);
    if (isDynamic(row)) this.#dynamicCount++;
    return row;
  }

  #remove(row: Row): void {
    this.#rows.delete(row.address);
    const key = clientKey(row as LeaseClient);
    if (this.#byClient.get(key) === row) this.#byClient.delete(key);
    if (row.name !== undefined && this.#byName.get(row.name) === row) this.#byName.delete(row.name);
    if (isDynamic(row)) this.#dynamicCount--;
  }
}

/** Whether others must not go by this row's name. An idle or offered row may have one, from its client's past. */
function holdsName({ state }: Row): boolean {
  return state === 'attached' || state === 'reserved' || state === 'bound';
}

function isDynamic(row: Row): boolean {
  return !row.fixed && row.state !== 'attached';
}
