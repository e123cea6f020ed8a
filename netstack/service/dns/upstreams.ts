/**
 * The resolvers to forward to, and which to ask first: those for the closest domain if any are given for it, in their
 * order, and among equals those that answered last.
 */
import { parseAddress, parseIpv4 } from '../../wire/address.ts';
import { DNS_PORT } from '../../wire/dns.ts';
import { canonicalName } from './names.ts';

/** How long a server that failed is asked only after the others. */
export const UPSTREAM_PENALTY_MS = 10_000;
/** Most servers taken from one configuration. */
export const UPSTREAMS_MAX = 32;

/** A resolver. */
export interface Upstream {
  /** 16 bytes, IPv4 in the mapped form. */
  readonly address: Uint8Array;
  readonly port: number;
  /** Asked for names in these domains only (canonical form). Empty: for everything that has no server of its own. */
  readonly domains: readonly string[];
  /** Lower ones are asked first. */
  readonly order: number;
  /** How long to wait before the next server is asked too; undefined: the resolver's default. */
  readonly timeoutMs?: number;
}

/**
 * Reads `address`, `address#port` or `[address]:port`, and before it, as dnsmasq has it, the domains that it is for:
 * `/corp.example/lab.example/10.0.0.1`. Undefined when it is none.
 */
export function parseUpstream(whole: string): Upstream | undefined {
  const parts = whole.split('/');
  const text = parts.pop()!;
  const domains = parts.slice(1).map(canonicalName);
  if (parts.length > 0 && (parts[0] !== '' || domains.length === 0 || domains.includes(''))) return undefined;
  const match =
    /^\[(?<a>[^\]]+)\](?::(?<p>\d+))?$/.exec(text) ??
    /^(?<a>[^#]+)#(?<p>\d+)$/.exec(text) ??
    /^(?<a>\d+\.\d+\.\d+\.\d+):(?<p>\d+)$/.exec(text) ??
    /^(?<a>.+)$/.exec(text);
  const address = parseAddress(match?.groups?.a ?? '');
  const port = Number(match?.groups?.p ?? DNS_PORT);
  return address && port > 0 && port < 65536 ? { address, port, domains, order: 0 } : undefined;
}

/** The servers of a resolv.conf (resolv.conf(5)). Link-local IPv6 addresses with a zone are left out. */
export function parseResolvConf(text: string): Upstream[] {
  const upstreams: Upstream[] = [];
  for (const line of text.split('\n')) {
    const [keyword, value] = line.trim().split(/\s+/);
    if (keyword !== 'nameserver' || !value) continue;
    // The resolver takes 0.0.0.0 for this host, as connect(2) does.
    const upstream = parseUpstream(parseIpv4(value) === 0 ? '127.0.0.1' : value);
    if (upstream && upstreams.length < UPSTREAMS_MAX) upstreams.push(upstream);
  }
  return upstreams;
}

interface Health {
  penalisedUntil: number;
}

function keyOf(upstream: Upstream): string {
  return `${upstream.address.join('.')}#${upstream.port}`;
}

/** The domains that a resolv.conf(5) searches: those of its last `search` or `domain` line. */
export function parseSearchDomains(content: string): string[] {
  let domains: string[] = [];
  for (const line of content.split('\n')) {
    const [keyword, ...names] = line.trim().split(/\s+/);
    if (keyword === 'search') domains = names;
    else if (keyword === 'domain') domains = names.slice(0, 1);
  }
  return domains;
}

/** The servers in use and how they have fared. */
export class UpstreamSet {
  #all: readonly Upstream[] = [];
  readonly #health = new Map<string, Health>();

  /** Replaces the servers; false when they are the same as before. */
  set(upstreams: readonly Upstream[]): boolean {
    const next = upstreams.slice(0, UPSTREAMS_MAX);
    const describe = (list: readonly Upstream[]): string =>
      JSON.stringify(list.map((u) => [keyOf(u), u.domains, u.order, u.timeoutMs]));
    if (describe(next) === describe(this.#all)) return false;
    this.#all = next;
    this.#health.clear();
    return true;
  }

  /** All servers. */
  list(): readonly Upstream[] {
    return this.#all;
  }

  /** The servers to ask for a name, in order. */
  choose(now: number, name: string): Upstream[] {
    let best = -1;
    let chosen: Upstream[] = [];
    for (const upstream of this.#all) {
      const length = matchLength(upstream, name);
      if (length < best || length < 0) continue;
      if (length > best) chosen = [];
      best = length;
      chosen.push(upstream);
    }
    const penalty = (upstream: Upstream): number =>
      (this.#health.get(keyOf(upstream))?.penalisedUntil ?? 0) > now ? 1 : 0;
    // Array.prototype.sort is stable: equals keep the order of the configuration.
    return chosen.sort((a, b) => penalty(a) - penalty(b) || a.order - b.order);
  }

  /** Notes that a server answered. */
  succeeded(upstream: Upstream): void {
    this.#health.delete(keyOf(upstream));
  }

  /** Notes that a server did not answer, or could not. */
  failed(now: number, upstream: Upstream): void {
    this.#health.set(keyOf(upstream), { penalisedUntil: now + UPSTREAM_PENALTY_MS });
  }
}

/** Length of the domain by which a server is meant for a name; 0 for one that is for everything, -1 for one that is not. */
function matchLength(upstream: Upstream, name: string): number {
  if (upstream.domains.length === 0) return 0;
  let length = -1;
  for (const domain of upstream.domains.map(canonicalName))
    if (name === domain || name.endsWith(`.${domain}`)) length = Math.max(length, domain.length);
  return length;
}
