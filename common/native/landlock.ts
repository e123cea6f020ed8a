/**
 * Landlock (landlock(7)): a process gives up access to files, TCP ports, and to what is outside of its domain, for good
 * and for all its children. Rights are granted by folder and add up on the way from the root to a file: nothing granted
 * above can be taken away below. What this kernel's version does not know stays unrestricted.
 */
import { systemCall } from './syscall.ts';

const CREATE_RULESET_VERSION = 1;
const RULE_PATH_BENEATH = 1;
const RULE_NET_PORT = 2;

/** LANDLOCK_ACCESS_FS_ of include/uapi/linux/landlock.h. */
const EXECUTE = 1n << 0n;
const READ_FILE = 1n << 2n;
const READ_DIR = 1n << 3n;
const MAKE_CHAR = 1n << 6n;
const MAKE_BLOCK = 1n << 11n;
const REFER = 1n << 13n;
const TRUNCATE = 1n << 14n;
const IOCTL_DEV = 1n << 15n;
/** What of a write makes sense for a file that is no folder: WRITE_FILE and the later ones. */
const WRITE_FILE = 1n << 1n;

/** Version of Landlock that knows the rights up to a bit. */
const BITS_BY_ABI: readonly [abi: number, rights: bigint][] = [
  [1, (1n << 13n) - 1n],
  [2, REFER],
  [3, TRUNCATE],
  [5, IOCTL_DEV],
];
/** LANDLOCK_ACCESS_NET_, from version 4. */
const TCP = { bind: 1n, connect: 2n } as const;
const NET_TCP: bigint = TCP.bind | TCP.connect;
const NET_ABI = 4;
/** Abstract sockets and signals, from version 6. */
const SCOPE_OUTSIDE = 3n;
const SCOPE_ABI = 6;

const rawCreate = systemCall<[Uint8Array | null, number, number]>('landlock_create_ruleset', [
  'void *',
  'size_t',
  'uint',
]);
const rawAddRule = systemCall<[number, number, Uint8Array, number]>('landlock_add_rule', [
  'int',
  'int',
  'void *',
  'uint',
]);
const rawRestrict = systemCall<[number, number]>('landlock_restrict_self', ['int', 'uint']);

/** The kernel's version of Landlock; 0 where there is none. */
export function landlockVersion(): number {
  try {
    return rawCreate(null, 0, CREATE_RULESET_VERSION);
  } catch {
    return 0;
  }
}

/** All rights about files that a version knows. */
function fileRights(abi: number): bigint {
  return BITS_BY_ABI.reduce((all, [since, rights]) => (abi >= since ? all | rights : all), 0n);
}

/**
 * A new set of rules, which refuses all that it is about until {@link allowPath} and {@link allowPort} grant it. Of what is
 * outside (abstract sockets, signals) there are no grants.
 */
export function createRuleset(abi: number, restrict: { tcp: boolean; outside: boolean }): number {
  const net = restrict.tcp && abi >= NET_ABI ? NET_TCP : 0n;
  const scope = restrict.outside && abi >= SCOPE_ABI ? SCOPE_OUTSIDE : 0n;
  // A kernel takes the size that its version had, and a longer one when the rest is zero.
  const attributes = new BigUint64Array([fileRights(abi), net, scope]);
  return rawCreate(new Uint8Array(attributes.buffer), attributes.byteLength, 0);
}

/** What a path is granted for. */
export interface PathRights {
  write: boolean;
  execute: boolean;
  /** Whether device nodes may be made, where it may be written. */
  nodes: boolean;
  directory: boolean;
}

/** Grants rights to what `fd` (O_PATH) refers to and everything below it. */
export function allowPath(ruleset: number, abi: number, fd: number, rights: PathRights): void {
  let allowed = READ_FILE | READ_DIR;
  if (rights.execute) allowed |= EXECUTE;
  if (rights.write) allowed |= fileRights(abi) & ~(EXECUTE | (rights.nodes ? 0n : MAKE_CHAR | MAKE_BLOCK));
  if (!rights.directory) allowed &= EXECUTE | READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV;
  // struct landlock_path_beneath_attr is packed: 12 bytes.
  const rule = Buffer.alloc(12);
  rule.writeBigUInt64LE(allowed & fileRights(abi), 0);
  rule.writeInt32LE(fd, 8);
  rawAddRule(ruleset, RULE_PATH_BENEATH, rule, 0);
}

/** Grants one TCP port, whatever the address. Where the version knows no ports they are free anyway. */
export function allowPort(ruleset: number, abi: number, what: keyof typeof TCP, port: number): void {
  if (abi < NET_ABI) return;
  // struct landlock_net_port_attr
  const rule = new BigUint64Array([TCP[what], BigInt(port)]);
  rawAddRule(ruleset, RULE_NET_PORT, new Uint8Array(rule.buffer), 0);
}

/** Puts the calling thread under the rules, which wants no_new_privs or CAP_SYS_ADMIN. */
export function restrictSelf(ruleset: number): void {
  rawRestrict(ruleset, 0);
}
