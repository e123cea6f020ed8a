/**
 * The names that this network answers itself: guests, the host, and zones that an operator adds. All of it can change at any
 * time, so answers are never cached (TTL 0).
 *
 * What is internal stays inside: a bare name, a name under the network's own domain or under a zone, and the reverse of
 * an address of the network is answered here or does not exist. Nothing of it is asked upstream.
 */
import { formatAddress, isMapped, parseAddress } from '../../wire/address.ts';
import { DNS_TYPE, nameBytes, reverseAddress } from '../../wire/dns.ts';

/** Most names of one guest, and most records of one zone; what is beyond is refused by the caller's checks. */
export const GUEST_NAMES_MAX = 256;

/** A record of a zone: names that are equal, or that match, get the address. */
export interface ZoneRecord {
  /** Labels below the zone, in lower case. */
  name?: string;
  pattern?: RegExp;
  address: Uint8Array;
}

/** A zone: everything below `name` is answered here. */
export interface Zone {
  /** Without the final dot; '' is the root, which takes everything over. */
  name: string;
  records: ZoneRecord[];
  /** For names without a record; without it they do not exist. */
  defaultAddress?: Uint8Array;
}

/** Names that come from elsewhere, such as DHCP's host names: one label each. */
export interface NameSource {
  addressOf(now: number, label: string): Uint8Array | undefined;
  nameOf(now: number, address: Uint8Array): string | undefined;
}

/** What is known of a name: its addresses (16 bytes each), or that it is internal and does not exist. */
export type NameAnswer = { addresses: readonly Uint8Array[] } | 'unknown-here';

/** Top-level names of container engines' conventions, which no public server knows. */
const INTERNAL_DOMAINS = ['docker.internal', 'containers.internal'];

const LOCALHOST = ['127.0.0.1', '::1'].map((text) => parseAddress(text)!);

/** Types that ask for hosts: a bare name of these types is never asked upstream. Others (`NS com.`) are real questions. */
const HOST_TYPES: ReadonlySet<number> = new Set([
  DNS_TYPE.a,
  DNS_TYPE.aaaa,
  DNS_TYPE.https,
  DNS_TYPE.svcb,
  DNS_TYPE.any,
]);

/** A name as it is compared: lower case, no final dot. */
export function canonicalName(name: string): string {
  return name.toLowerCase().replace(/\.$/, '');
}

function isBelow(name: string, domain: string): boolean {
  return domain === '' ? name !== '' : name.endsWith(`.${domain}`);
}

/** How a table is made. */
export interface NameTableOptions {
  /** Guests are known under this domain besides their bare names. */
  domain?: string;
  /** True for addresses of the network: their reverse names are answered here. */
  isLocal: (address: Uint8Array) => boolean;
  sources?: readonly NameSource[];
}

/** The names of one network. */
export class NameTable {
  readonly #domain: string;
  readonly #isLocal: (address: Uint8Array) => boolean;
  readonly #sources: readonly NameSource[];
  readonly #host = new Map<string, readonly Uint8Array[]>();
  readonly #guests = new Map<string, { names: string[]; addresses: readonly Uint8Array[] }>();
  /** Addresses of all guests that have a name, in the order in which they came. */
  readonly #byName = new Map<string, Uint8Array[]>();
  readonly #byAddress = new Map<string, string[]>();
  #zones: Zone[] = [];

  constructor(options: NameTableOptions) {
    this.#domain = canonicalName(options.domain ?? '');
    this.#isLocal = options.isLocal;
    this.#sources = options.sources ?? [];
  }

  /** Replaces the names of the host's side, such as host.docker.internal. */
  setHostNames(names: Iterable<readonly [string, readonly Uint8Array[]]>): void {
    this.#host.clear();
    for (const [name, addresses] of names) this.#host.set(canonicalName(name), addresses);
  }

  /** Replaces the names of a guest; no names: forgets it. The first name is the one that reverse look-ups give. */
  setGuest(key: string, names: readonly string[], addresses: readonly Uint8Array[]): void {
    if (names.length === 0) this.#guests.delete(key);
    else
      this.#guests.set(key, {
        names: [...new Set(names.slice(0, GUEST_NAMES_MAX).map(canonicalName))],
        addresses,
      });
    this.#index();
  }

  #index(): void {
    this.#byName.clear();
    this.#byAddress.clear();
    for (const { names, addresses } of this.#guests.values()) {
      for (const name of names) {
        const all = this.#byName.get(name) ?? [];
        all.push(...addresses);
        this.#byName.set(name, all);
      }
      for (const address of addresses) {
        const text = formatAddress(address, 0);
        this.#byAddress.set(text, [...(this.#byAddress.get(text) ?? []), ...names]);
      }
    }
  }

  /** Adds a zone. Records of one that exists already are put in front, and its default is replaced (as gvproxy does). */
  addZone(zone: Zone): void {
    const name = canonicalName(zone.name);
    const before = this.#zones.find((other) => other.name === name);
    const merged: Zone = {
      name,
      records: [...zone.records, ...(before?.records ?? [])],
      ...(zone.defaultAddress && { defaultAddress: zone.defaultAddress }),
    };
    // The longest name is the closest zone.
    this.#zones = [...this.#zones.filter((other) => other !== before), merged].sort(
      (a, b) => b.name.length - a.name.length,
    );
  }

  /** The zones, closest first. */
  zones(): readonly Zone[] {
    return this.#zones;
  }

  /** What is known of a name (canonical form); undefined: ask upstream. */
  lookup(now: number, name: string, type: number): NameAnswer | undefined {
    // RFC 6761 section 6.3: localhost never leaves.
    if (name === 'localhost' || isBelow(name, 'localhost')) return { addresses: LOCALHOST };
    // What an operator says of a name goes before what is known of it by itself; what is said of a whole zone, after.
    const zone = this.#zones.find((candidate) => isBelow(name, candidate.name));
    const record = zone && recordOf(zone, name);
    if (record) return { addresses: [record.address] };
    const own = this.#host.get(name) ?? this.#guest(now, name);
    if (own) return { addresses: own };
    if (zone?.defaultAddress) return { addresses: [zone.defaultAddress] };
    return zone || this.#isInternal(name, type) ? 'unknown-here' : undefined;
  }

  #guest(now: number, name: string): readonly Uint8Array[] | undefined {
    const bare =
      this.#domain !== '' && isBelow(name, this.#domain) ? name.slice(0, -this.#domain.length - 1) : name;
    const own = this.#byName.get(name) ?? this.#byName.get(bare);
    if (own || bare === '' || bare.includes('.')) return own;
    for (const source of this.#sources) {
      const address = source.addressOf(now, bare);
      if (address) return [address];
    }
    return undefined;
  }

  #isInternal(name: string, type: number): boolean {
    if (name === '') return false;
    if (!name.includes('.') && HOST_TYPES.has(type)) return true;
    if (this.#domain !== '' && (name === this.#domain || isBelow(name, this.#domain))) return true;
    // RFC 7686 section 2: .onion is no DNS; RFC 6761 section 6.4: .invalid does not exist.
    if (isBelow(name, 'onion') || isBelow(name, 'invalid')) return true;
    return INTERNAL_DOMAINS.some((domain) => name === domain || isBelow(name, domain));
  }

  /** What is known of a reverse name; undefined: ask upstream. */
  reverse(now: number, name: string): string[] | 'unknown-here' | undefined {
    const bytes = reverseAddress(name);
    if (!bytes) return undefined;
    const address = bytes.length === 4 ? mappedBytes(bytes) : bytes;
    const text = formatAddress(address, 0);
    const guest = this.#byAddress.get(text)?.[0] ?? this.#sourceName(now, address);
    if (guest !== undefined) return [this.#fullName(guest)];
    for (const [hostName, addresses] of this.#host)
      if (addresses.some((own) => formatAddress(own, 0) === text)) return [hostName];
    return this.#isLocal(address) ? 'unknown-here' : undefined;
  }

  #sourceName(now: number, address: Uint8Array): string | undefined {
    for (const source of this.#sources) {
      const name = source.nameOf(now, address);
      if (name !== undefined) return name;
    }
    return undefined;
  }

  #fullName(name: string): string {
    return this.#domain === '' || name.includes('.') ? name : `${name}.${this.#domain}`;
  }
}

/** The first record of a zone that is for a name below it. */
function recordOf(zone: Zone, name: string): ZoneRecord | undefined {
  const label = zone.name === '' ? name : name.slice(0, -zone.name.length - 1);
  return zone.records.find((record) => record.name === label || record.pattern?.test(label));
}

function mappedBytes(ipv4: Uint8Array): Uint8Array {
  const address = new Uint8Array(16);
  address[10] = 0xff;
  address[11] = 0xff;
  address.set(ipv4, 12);
  return address;
}

/** The data of an A record (4 bytes) or AAAA record (16 bytes) for an address, if it is of that family. */
export function addressData(address: Uint8Array, type: number): Uint8Array | undefined {
  const isIpv4 = isMapped(address, 0);
  if (type === DNS_TYPE.a) return isIpv4 ? address.slice(12) : undefined;
  return isIpv4 ? undefined : address;
}

/** True for a name that can be encoded; operators' names are checked with it when they are added. */
export function isValidName(name: string): boolean {
  return nameBytes(canonicalName(name)) !== undefined;
}
