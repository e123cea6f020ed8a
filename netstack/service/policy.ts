/**
 * Which flows may leave a network: a list of rules, first match decides, and a default. A rule names addresses (CIDR), ports,
 * protocols and names; names are known by the DNS answers that this network's own resolver gave.
 *
 * A name opens the addresses that were answered for it, to whoever connects to them while the answer is fresh and a
 * grace time after it: guests cache. An address that also serves other names is open for those too; that is the limit
 * of a policy by address, and why a denied name is not even resolved (see {@link EgressRules.allowsName}).
 *
 * Clouds answer their machines' credentials at link-local "metadata" addresses; a container has no business there, so they are
 * denied unless asked otherwise, whatever the other rules say.
 */
import type { EgressPolicy } from '../flow/inside.ts';
import { RateLimit } from '../ip/rate-limit.ts';
import {
  formatAddress,
  formatEndpoint,
  mapped,
  parseAddress,
  sameAddress,
  samePrefix,
} from '../wire/address.ts';
import { canonicalName } from './dns/names.ts';

/** Most rules of one policy. */
export const RULES_MAX = 1024;
/** Most addresses remembered of names; the oldest give way. */
export const LEARNED_MAX = 16_384;
/** Most names remembered of one address: a guest can make as many as it likes. */
export const NAMES_PER_ADDRESS_MAX = 64;
/** How long a name's address stays open after its TTL: clients keep answers longer than they should. */
export const LEARNED_GRACE_MS = 60_000;
/** Most rows of the log of what was denied. */
export const DENIED_LOG_MAX = 1000;

/** Most denials told at once and per second; a guest can make as many as it likes. The rows and counters have them all. */
const TOLD_BURST = 50;
const TOLD_PER_SECOND = 10;

/** Addresses at which clouds give out credentials. */
export const METADATA_ADDRESSES: readonly string[] = ['169.254.169.254', 'fd00:ec2::254'];

export type PolicyAction = 'allow' | 'deny';

/** One rule as people write it. What is left out matches everything. */
export interface PolicyRule {
  action: PolicyAction;
  /** `10.0.0.0/8`, `2001:db8::/32`, or one address. */
  cidr?: string;
  /** `443`, or `8000-8999`. */
  port?: string;
  protocol?: 'tcp' | 'udp' | 'icmp';
  /** `example.com`, or `*.example.com` for everything below it. */
  name?: string;
  /**
   * Server name that a TLS client asks for, written as `name` is. A connection that such a rule may concern is let through until
   * its first bytes have shown the name, and is reset then if it is denied. Behind a proxy that is asked by name, that name.
   */
  sni?: string;
}

/** A policy as people write it. */
export interface PolicyConfig {
  /** What happens to flows that no rule matches. */
  default: PolicyAction;
  rules: PolicyRule[];
  /** Let flows to {@link METADATA_ADDRESSES} be decided by the rules. Default false: they are denied. */
  metadata?: boolean;
}

/** A flow that was denied, or a name that was not asked for. */
export interface DeniedFlow {
  /** Monotonic time of the last attempt. */
  at: number;
  /** `*` where it is not known. */
  guest: string;
  /** The endpoint, or the name that a guest wanted to have resolved. */
  target: string;
  /** `tcp`, `udp`, `icmp`, `dns` for a name, or a protocol's number. */
  protocol: string;
  /** Name by which the guest knew the address, when it asked us. */
  name: string | undefined;
  /** Index of the rule; -1: the default, -2: a metadata address. */
  rule: number;
  count: number;
}

interface Rule {
  action: PolicyAction;
  network: Uint8Array | undefined;
  prefixLength: number;
  portFirst: number;
  portLast: number;
  protocol: PolicyRule['protocol'];
  name: NamePattern | undefined;
  sni: NamePattern | undefined;
}

/** A name, or everything below it. */
interface NamePattern {
  name: string;
  isWildcard: boolean;
}

const TCP = 6;
const LOOPBACK: Uint8Array = mapped(0x7f000001);

const RULE_DEFAULT = -1;
const RULE_METADATA = -2;
const RULE_AWAITED = -3;

/** Reads a rule, or says what is wrong with it. */
function compileRule(rule: PolicyRule): Rule | string {
  if (rule.action !== 'allow' && rule.action !== 'deny')
    return `the action is "${rule.action}", not allow or deny`;
  let network: Uint8Array | undefined;
  let prefixLength = 0;
  if (rule.cidr !== undefined) {
    const [text, length] = rule.cidr.split('/');
    network = parseAddress(text ?? '');
    const bits = rule.cidr.includes(':') ? 128 : 32;
    const prefix = length === undefined ? bits : Number(length);
    if (!network || !Number.isInteger(prefix) || prefix < 0 || prefix > bits)
      return `"${rule.cidr}" is no network like 10.0.0.0/8`;
    prefixLength = prefix + 128 - bits;
  }
  const ports = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(rule.port ?? '0-65535');
  const portFirst = Number(ports?.[1]);
  const portLast = Number(ports?.[2] ?? portFirst);
  if (!ports || portFirst > portLast || portLast > 65535)
    return `"${rule.port}" is no port or range of ports`;
  if (rule.protocol !== undefined && !['tcp', 'udp', 'icmp'].includes(rule.protocol))
    return `the protocol is "${rule.protocol}", not tcp, udp or icmp`;
  const name = rule.name === undefined ? undefined : compileName(rule.name);
  const sni = rule.sni === undefined ? undefined : compileName(rule.sni);
  for (const [pattern, text] of [
    [name, rule.name],
    [sni, rule.sni],
  ] as const)
    if (text !== undefined && !pattern) return `"${text}" is no name like example.com or *.example.com`;
  if (sni && rule.protocol !== undefined && rule.protocol !== 'tcp')
    return 'a server name goes with tcp only';
  return {
    action: rule.action,
    network,
    prefixLength,
    portFirst,
    portLast,
    protocol: rule.protocol,
    name,
    sni,
  };
}

function compileName(text: string): NamePattern | undefined {
  const isWildcard = text.startsWith('*.');
  const name = canonicalName(isWildcard ? text.slice(2) : text);
  return name === '' || name.includes('*') ? undefined : { name, isWildcard };
}

/** What is wrong with a policy, one sentence for each fault. */
export function policyFaults(config: PolicyConfig): string[] {
  const faults: string[] = [];
  if (config.default !== 'allow' && config.default !== 'deny')
    faults.push(`The default is "${config.default}", not allow or deny.`);
  if (config.rules.length > RULES_MAX) faults.push(`There are more than ${RULES_MAX} rules.`);
  for (const [index, rule] of config.rules.entries()) {
    const compiled = compileRule(rule);
    if (typeof compiled === 'string') faults.push(`Rule ${index}: ${compiled}.`);
  }
  return faults;
}

const PROTOCOLS: Readonly<Record<number, NonNullable<PolicyRule['protocol']>>> = {
  1: 'icmp',
  6: 'tcp',
  17: 'udp',
  58: 'icmp',
};

function nameMatches(pattern: NamePattern, name: string): boolean {
  return pattern.isWildcard ? name.endsWith(`.${pattern.name}`) : name === pattern.name;
}

/** What is known of the TLS server name of a connection: nothing yet, or what its first bytes said. */
type Hello = 'awaited' | { name: string | undefined };

/** A policy in force. */
export class EgressRules implements EgressPolicy {
  readonly #now: () => number;
  readonly #told: (flow: DeniedFlow) => void;
  readonly #tellLimit: RateLimit = new RateLimit(TOLD_PER_SECOND, TOLD_BURST);
  #rules: Rule[] = [];
  #default: PolicyAction = 'allow';
  #metadata: readonly Uint8Array[] = METADATA_ADDRESSES.map((text) => parseAddress(text)!);
  #proxyPort: number | undefined;
  /** By address in text; refreshed ones move to the end. */
  readonly #learned = new Map<string, Map<string, number>>();
  readonly #denied = new Map<string, DeniedFlow>();
  readonly counters: Record<string, number> = {
    policy_allowed: 0,
    policy_denied: 0,
    policy_hello_denied: 0,
    policy_names_denied: 0,
  };

  /** `told` hears of each denial that is new to the rows of {@link denied}, though not of more than people can read. */
  constructor(now: () => number, told: (flow: DeniedFlow) => void = () => {}) {
    this.#now = now;
    this.#told = told;
  }

  /** Puts a sound policy in force (see {@link policyFaults}) for flows that begin from now on. */
  set(config: PolicyConfig): void {
    this.#rules = config.rules.map(compileRule).filter((rule): rule is Rule => typeof rule !== 'string');
    this.#default = config.default;
    this.#metadata = config.metadata ? [] : METADATA_ADDRESSES.map((text) => parseAddress(text)!);
  }

  /** The port of the host's loopback where guests have a proxy that asks this policy itself; undefined: none. */
  setProxyPort(port: number | undefined): void {
    this.#proxyPort = port;
  }

  /** Takes the addresses that a name was answered with. */
  learn(name: string, addresses: readonly Uint8Array[], ttlSeconds: number): void {
    const until = this.#now() + ttlSeconds * 1000 + LEARNED_GRACE_MS;
    for (const address of addresses) {
      const key = formatAddress(address, 0);
      const names = this.#learned.get(key) ?? new Map<string, number>();
      const before = names.get(name) ?? 0;
      names.delete(name);
      names.set(name, Math.max(until, before));
      if (names.size > NAMES_PER_ADDRESS_MAX) names.delete(names.keys().next().value!);
      this.#learned.delete(key);
      this.#learned.set(key, names);
      if (this.#learned.size > LEARNED_MAX) this.#learned.delete(this.#learned.keys().next().value!);
    }
  }

  /** The name by which guests know an address, the latest if there are several. */
  nameOf(addr: Uint8Array, off: number): string | undefined {
    return this.#namesOf(formatAddress(addr, off)).at(-1);
  }

  /** Names by which an address is known now. */
  #namesOf(key: string): string[] {
    const names = this.#learned.get(key);
    if (!names) return [];
    const now = this.#now();
    for (const [name, until] of names) if (until < now) names.delete(name);
    if (names.size === 0) this.#learned.delete(key);
    return [...names.keys()];
  }

  allows(
    protocol: number,
    guest: Uint8Array,
    guestOff: number,
    addr: Uint8Array,
    addrOff: number,
    port: number,
  ): boolean {
    const names = this.#learned.size === 0 ? [] : this.#namesOf(formatAddress(addr, addrOff));
    const isProxy = port === this.#proxyPort && protocol === TCP && sameAddress(addr, addrOff, LOOPBACK, 0);
    const rule = isProxy
      ? RULE_AWAITED
      : this.#decide(PROTOCOLS[protocol], addr, addrOff, port, names, 'awaited');
    return this.#settle(rule, PROTOCOLS[protocol] ?? String(protocol), names[0], guest, guestOff, () =>
      formatEndpoint(addr, addrOff, port),
    );
  }

  /**
   * The decision about a connection that a proxy makes for a guest by the name that it was asked for, at an address that it
   * found or, with another proxy before it, at one that only that one will find: then the rules with `cidr` say nothing.
   */
  allowsNamed(guest: Uint8Array, name: string, port: number, addr: Uint8Array | undefined): boolean {
    const rule = this.#decide('tcp', addr, 0, port, [name], { name });
    return this.#settle(rule, 'tcp', name, guest, 0, () =>
      addr ? formatEndpoint(addr, 0, port) : `${name}:${port}`,
    );
  }

  #settle(
    rule: number,
    protocol: string,
    name: string | undefined,
    guest: Uint8Array,
    guestOff: number,
    target: () => string,
  ): boolean {
    if (this.#actionOf(rule) === 'allow') {
      this.counters.policy_allowed!++;
      return true;
    }
    this.counters.policy_denied!++;
    this.#logDenied({
      at: this.#now(),
      guest: formatAddress(guest, guestOff),
      target: target(),
      protocol,
      name,
      rule,
      count: 1,
    });
    return false;
  }

  #actionOf(rule: number): PolicyAction {
    if (rule === RULE_DEFAULT) return this.#default;
    if (rule === RULE_AWAITED) return 'allow';
    return rule === RULE_METADATA ? 'deny' : this.#rules[rule]!.action;
  }

  /** True when the TLS server name of a TCP connection will decide. */
  awaitsHello(addr: Uint8Array, addrOff: number, port: number): boolean {
    if (!this.#rules.some(({ sni }) => sni)) return false;
    const names = this.#namesOf(formatAddress(addr, addrOff));
    return this.#decide('tcp', addr, addrOff, port, names, 'awaited') === RULE_AWAITED;
  }

  /** The decision about a connection that was let through until its first bytes: `sni` is the name they show, if any. */
  allowsHello(
    guest: Uint8Array | undefined,
    addr: Uint8Array,
    addrOff: number,
    port: number,
    sni: string | undefined,
  ): boolean {
    const names = this.#namesOf(formatAddress(addr, addrOff));
    const rule = this.#decide('tcp', addr, addrOff, port, names, { name: sni });
    if (this.#actionOf(rule) === 'allow') return true;
    this.counters.policy_hello_denied!++;
    this.#logDenied({
      at: this.#now(),
      guest: guest ? formatAddress(guest, 0) : '*',
      target: formatEndpoint(addr, addrOff, port),
      protocol: 'tcp',
      name: sni ?? names[0],
      rule,
      count: 1,
    });
    return false;
  }

  #decide(
    protocol: PolicyRule['protocol'],
    addr: Uint8Array | undefined,
    addrOff: number,
    port: number,
    names: readonly string[],
    hello: Hello,
  ): number {
    if (addr && this.#metadata.some((metadata) => sameAddress(metadata, 0, addr, addrOff)))
      return RULE_METADATA;
    for (const [index, rule] of this.#rules.entries()) {
      const { name, sni } = rule;
      const concerns =
        (rule.protocol === undefined || rule.protocol === protocol) &&
        port >= rule.portFirst &&
        port <= rule.portLast &&
        (!rule.network || (addr && samePrefix(rule.network, 0, addr, addrOff, rule.prefixLength))) &&
        (!name || names.some((known) => nameMatches(name, known)));
      if (!concerns || (sni && protocol !== 'tcp')) continue;
      if (!sni) return index;
      if (hello === 'awaited') return RULE_AWAITED;
      if (hello.name !== undefined && nameMatches(sni, hello.name)) return index;
    }
    return RULE_DEFAULT;
  }

  /**
   * False for a name that no flow could use: a rule denies it whatever the address and port, or nothing but names is
   * allowed and this is none of them. Such a question is not forwarded: it could carry data out. `guest` is who asks, in text.
   */
  allowsName(name: string, guest = '*'): boolean {
    for (const [index, rule] of this.#rules.entries()) {
      const pattern = rule.name ?? rule.sni;
      if (pattern) {
        if (!nameMatches(pattern, name)) continue;
        const isWhole = !rule.network && rule.portFirst === 0 && rule.portLast === 65535 && !rule.protocol;
        if (rule.action === 'allow') return true;
        // A denied server name may still be wanted for something else than TLS.
        if (isWhole && rule.name) return this.#denyName(name, guest, index);
      } else if (rule.action === 'allow') return true;
    }
    return this.#default === 'allow' || this.#denyName(name, guest, RULE_DEFAULT);
  }

  #denyName(name: string, guest: string, rule: number): false {
    this.counters.policy_names_denied!++;
    this.#logDenied({ at: this.#now(), guest, target: name, protocol: 'dns', name, rule, count: 1 });
    return false;
  }

  #logDenied(flow: DeniedFlow): void {
    const key = `${flow.protocol} ${flow.guest} ${flow.target}`;
    const before = this.#denied.get(key);
    this.#denied.delete(key);
    this.#denied.set(key, before ? { ...flow, count: before.count + 1 } : flow);
    if (!before && this.#tellLimit.take(this.#now())) this.#told(flow);
    if (this.#denied.size > DENIED_LOG_MAX) this.#denied.delete(this.#denied.keys().next().value!);
  }

  /** What was denied, latest last. */
  denied(): DeniedFlow[] {
    return [...this.#denied.values()];
  }
}
