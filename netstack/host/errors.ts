/** From errno and queued ICMP errors (ip(7), IP_RECVERR) to the words of flow/host.ts. */
import type { ExtendedError } from '#common/native/datagrams';
import type { HostError, HostIcmpError } from '../flow/host.ts';

const KNOWN: ReadonlySet<string> = new Set<HostError>([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EADDRINUSE',
  'EADDRNOTAVAIL',
  'EACCES',
  'EMSGSIZE',
  'EMFILE',
  'EIO',
]);

const CLOSEST: Readonly<Record<string, HostError>> = {
  EPERM: 'EACCES',
  ENFILE: 'EMFILE',
  ENOBUFS: 'EMFILE',
  ENOMEM: 'EMFILE',
  EHOSTDOWN: 'EHOSTUNREACH',
  ENETDOWN: 'ENETUNREACH',
  ENONET: 'ENETUNREACH',
  EAFNOSUPPORT: 'ENETUNREACH',
  ECONNABORTED: 'ECONNRESET',
  // connect(2) to a broadcast or otherwise senseless address, and to a port where we would reach ourselves.
  EINVAL: 'EADDRNOTAVAIL',
  ENOTFOUND: 'EHOSTUNREACH',
};

/** The host error closest to an errno's name. */
export function hostError(errnoName: string | undefined): HostError {
  if (errnoName === undefined) return 'EIO';
  if (KNOWN.has(errnoName)) return errnoName as HostError;
  return CLOSEST[errnoName] ?? 'EIO';
}

/** What an ICMP error does to a socket that is connecting; undefined: nothing, it tries on. */
export const CONNECT_ERRORS: Readonly<Record<HostIcmpError['kind'], HostError | undefined>> = {
  'port-unreachable': 'ECONNREFUSED',
  'host-unreachable': 'EHOSTUNREACH',
  'net-unreachable': 'ENETUNREACH',
  prohibited: 'EACCES',
  'ttl-exceeded': 'EHOSTUNREACH',
  'too-big': undefined,
};

const ORIGIN_LOCAL = 1;
const ORIGIN_ICMP = 2;
const ORIGIN_ICMP6 = 3;

/** RFC 792, RFC 1122 section 3.2.2.1 and RFC 1812 section 5.2.7.1: codes of ICMP destination unreachable. */
const UNREACHABLE_V4: Readonly<Record<number, HostIcmpError['kind']>> = {
  0: 'net-unreachable',
  1: 'host-unreachable',
  2: 'port-unreachable',
  3: 'port-unreachable',
  4: 'too-big',
  5: 'host-unreachable',
  6: 'net-unreachable',
  7: 'host-unreachable',
  9: 'prohibited',
  10: 'prohibited',
  11: 'net-unreachable',
  12: 'host-unreachable',
  13: 'prohibited',
};

/** RFC 4443 section 3.1: codes of ICMPv6 destination unreachable. */
const UNREACHABLE_V6: Readonly<Record<number, HostIcmpError['kind']>> = {
  0: 'net-unreachable',
  1: 'prohibited',
  2: 'host-unreachable',
  3: 'host-unreachable',
  4: 'port-unreachable',
  5: 'prohibited',
  6: 'prohibited',
};

function kindOf(error: ExtendedError, errnoName: string): HostIcmpError['kind'] | undefined {
  switch (error.origin) {
    case ORIGIN_ICMP:
      if (error.type === 3) return UNREACHABLE_V4[error.code];
      return error.type === 11 ? 'ttl-exceeded' : undefined;
    case ORIGIN_ICMP6:
      if (error.type === 1) return UNREACHABLE_V6[error.code];
      if (error.type === 2) return 'too-big';
      return error.type === 3 ? 'ttl-exceeded' : undefined;
    case ORIGIN_LOCAL:
      if (errnoName === 'EMSGSIZE') return 'too-big';
      if (errnoName === 'EHOSTUNREACH') return 'host-unreachable';
      return errnoName === 'ENETUNREACH' ? 'net-unreachable' : undefined;
    default:
      return undefined;
  }
}

/** A queued error in the words of the core, or undefined when it is of no use to a guest. */
export function hostIcmpError(error: ExtendedError, errnoName: string): HostIcmpError | undefined {
  const kind = kindOf(error, errnoName);
  if (kind === undefined) return undefined;
  return {
    kind,
    mtuBytes: kind === 'too-big' ? error.info : 0,
    offender: error.hasOffender ? error.offender.slice() : undefined,
  };
}
