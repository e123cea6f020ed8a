/**
 * Which frames a capture keeps, in the words of pcap-filter(7): `tcp port 443 and host 172.17.0.2`, `not arp`,
 * `udp or icmp`, `net 10.0.0.0/8 and (port 53 or port 853)`, `ether host 02:42:ac:11:00:02`.
 *
 * An expression is compiled once to nested functions over one parsed frame, which is enough for capturing; it is no BPF.
 */
import { DrydockError } from '#common/errors';
import {
  get16,
  getMac,
  parseAddress,
  parseMac,
  putMapped,
  sameAddress,
  samePrefix,
} from '../wire/address.ts';

const ETHERNET_HEADER_LEN = 14;
const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_ARP = 0x0806;
const ETHERTYPE_IPV6 = 0x86dd;
const PROTOCOLS: Readonly<Record<string, number>> = { icmp: 1, tcp: 6, udp: 17, icmp6: 58 };

/** Longest expression: it is read, and asked about every frame, by functions within functions. */
const WORDS_MAX = 512;

/** What of a frame a filter can ask about. One object is reused. */
interface Facts {
  macSource: number;
  macDestination: number;
  etherType: number;
  /** False for what is neither IPv4, IPv6 nor ARP. */
  hasAddresses: boolean;
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  /** IP protocol, -1 without one. */
  protocol: number;
  /** -1 without ports, as in later fragments. */
  sourcePort: number;
  destinationPort: number;
}

type Test = (facts: Facts) => boolean;

/** Tells whether the frame from `off` to `end` is wanted. */
export type CaptureFilter = (buf: Uint8Array, off: number, end: number) => boolean;

/** Compiles an expression; an empty one keeps everything. @throws DrydockError ERR_FILTER_INVALID */
export function compileFilter(expression: string): CaptureFilter {
  const words = expression.match(/\(|\)|!|&&|\|\||[^\s()!&|]+/g) ?? [];
  if (words.length === 0) return () => true;
  if (words.length > WORDS_MAX) throw invalid(`it has more than ${WORDS_MAX} words`);
  const parser = new Parser(words);
  const test = parser.expression();
  parser.expectEnd();
  const facts: Facts = {
    macSource: 0,
    macDestination: 0,
    etherType: 0,
    hasAddresses: false,
    source: new Uint8Array(16),
    destination: new Uint8Array(16),
    protocol: -1,
    sourcePort: -1,
    destinationPort: -1,
  };
  return (buf, off, end) => end - off >= ETHERNET_HEADER_LEN && test(look(facts, buf, off, end));
}

function look(facts: Facts, buf: Uint8Array, off: number, end: number): Facts {
  facts.macDestination = getMac(buf, off);
  facts.macSource = getMac(buf, off + 6);
  facts.etherType = get16(buf, off + 12);
  facts.hasAddresses = false;
  facts.protocol = -1;
  facts.sourcePort = -1;
  facts.destinationPort = -1;
  const ip = off + ETHERNET_HEADER_LEN;
  if (facts.etherType === ETHERTYPE_IPV4 && end >= ip + 20) {
    facts.hasAddresses = true;
    putMapped(facts.source, 0, word(buf, ip + 12));
    putMapped(facts.destination, 0, word(buf, ip + 16));
    facts.protocol = buf[ip + 9]!;
    const laterFragment = (get16(buf, ip + 6) & 0x1fff) !== 0;
    if (!laterFragment) takePorts(facts, buf, ip + (buf[ip]! & 15) * 4, end);
  } else if (facts.etherType === ETHERTYPE_IPV6 && end >= ip + 40) {
    facts.hasAddresses = true;
    facts.source.set(buf.subarray(ip + 8, ip + 24));
    facts.destination.set(buf.subarray(ip + 24, ip + 40));
    facts.protocol = buf[ip + 6]!;
    takePorts(facts, buf, ip + 40, end);
  } else if (facts.etherType === ETHERTYPE_ARP && end >= ip + 28) {
    facts.hasAddresses = true;
    putMapped(facts.source, 0, word(buf, ip + 14));
    putMapped(facts.destination, 0, word(buf, ip + 24));
  }
  return facts;
}

function word(buf: Uint8Array, off: number): number {
  return get16(buf, off) * 0x10000 + get16(buf, off + 2);
}

function takePorts(facts: Facts, buf: Uint8Array, at: number, end: number): void {
  if ((facts.protocol !== PROTOCOLS.tcp && facts.protocol !== PROTOCOLS.udp) || end < at + 4) return;
  facts.sourcePort = get16(buf, at);
  facts.destinationPort = get16(buf, at + 2);
}

/** Recursive descent: or < and < not < primitive. */
class Parser {
  readonly #words: readonly string[];
  #at = 0;

  constructor(words: readonly string[]) {
    this.#words = words;
  }

  #next(): string {
    const word = this.#words[this.#at++];
    if (word === undefined) throw invalid('it ends too soon');
    return word;
  }

  #skip(...choices: string[]): boolean {
    const word = this.#words[this.#at];
    if (word === undefined || !choices.includes(word)) return false;
    this.#at++;
    return true;
  }

  expectEnd(): void {
    if (this.#at < this.#words.length) throw invalid(`"${this.#words[this.#at]}" is not expected there`);
  }

  expression(): Test {
    let left = this.#conjunction();
    while (this.#skip('or', '||')) {
      const [a, b] = [left, this.#conjunction()];
      left = (facts) => a(facts) || b(facts);
    }
    return left;
  }

  #conjunction(): Test {
    let left = this.#negation();
    while (this.#skip('and', '&&')) {
      const [a, b] = [left, this.#negation()];
      left = (facts) => a(facts) && b(facts);
    }
    return left;
  }

  #negation(): Test {
    if (this.#skip('not', '!')) {
      const inner = this.#negation();
      return (facts) => !inner(facts);
    }
    if (this.#skip('(')) {
      const inner = this.expression();
      if (!this.#skip(')')) throw invalid('a closing parenthesis is missing');
      return inner;
    }
    return this.#primitive();
  }

  #primitive(): Test {
    const word = this.#next();
    const protocol = PROTOCOLS[word];
    if (protocol !== undefined) {
      const isProtocol: Test = (facts) => facts.protocol === protocol;
      const next = this.#words[this.#at];
      // `tcp port 80` is `tcp and port 80`, as for tcpdump.
      if (next === undefined || !['port', 'src', 'dst', 'host', 'net'].includes(next)) return isProtocol;
      const rest = this.#primitive();
      return (facts) => isProtocol(facts) && rest(facts);
    }
    switch (word) {
      case 'arp':
        return (facts) => facts.etherType === ETHERTYPE_ARP;
      case 'ip':
        return (facts) => facts.etherType === ETHERTYPE_IPV4;
      case 'ip6':
        return (facts) => facts.etherType === ETHERTYPE_IPV6;
      case 'ether':
        if (!this.#skip('host')) throw invalid('after "ether" comes "host"');
        return etherHost(this.#next());
      case 'src':
      case 'dst':
        return this.#qualified(this.#next(), word === 'src', word === 'dst');
      default:
        return this.#qualified(word, true, true);
    }
  }

  #qualified(kind: string, source: boolean, destination: boolean): Test {
    switch (kind) {
      case 'host':
        return host(this.#next(), source, destination);
      case 'net':
        return net(this.#next(), source, destination);
      case 'port':
        return port(this.#next(), source, destination);
      default:
        throw invalid(`"${kind}" is not known`);
    }
  }
}

function etherHost(text: string): Test {
  const mac = parseMac(text);
  if (mac === undefined) throw invalid(`"${text}" is no MAC address`);
  return (facts) => facts.macSource === mac || facts.macDestination === mac;
}

function host(text: string, source: boolean, destination: boolean): Test {
  const address = parseAddress(text);
  if (!address) throw invalid(`"${text}" is no IP address`);
  return (facts) =>
    facts.hasAddresses &&
    ((source && sameAddress(facts.source, 0, address, 0)) ||
      (destination && sameAddress(facts.destination, 0, address, 0)));
}

function net(text: string, source: boolean, destination: boolean): Test {
  const [address, length] = text.split('/');
  const prefix = parseAddress(address ?? '');
  const bits = Number(length) + (address?.includes(':') ? 0 : 96);
  if (!prefix || !/^\d+$/.test(length ?? '') || bits > 128)
    throw invalid(`"${text}" is no network like 10.0.0.0/8`);
  return (facts) =>
    facts.hasAddresses &&
    ((source && samePrefix(facts.source, 0, prefix, 0, bits)) ||
      (destination && samePrefix(facts.destination, 0, prefix, 0, bits)));
}

function port(text: string, source: boolean, destination: boolean): Test {
  const number = Number(text);
  if (!/^\d+$/.test(text) || number > 0xffff) throw invalid(`"${text}" is no port number`);
  return (facts) =>
    (source && facts.sourcePort === number) || (destination && facts.destinationPort === number);
}

function invalid(reason: string): DrydockError {
  return new DrydockError(
    'ERR_FILTER_INVALID',
    `The capture filter cannot be read: ${reason}. Write it like "tcp port 443 and host 172.17.0.2".`,
  );
}
