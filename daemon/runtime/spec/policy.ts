/**
 * What a jail promises, without how: the part of a JailSpec that every compiler must agree on, made by pure functions.
 *
 * Files have access classes by path; of several rules the one with the longest path wins, so there is no order to get
 * wrong. A compiler that cannot say a rule must refuse the specification (promises) or tell of it in its report (wishes).
 */
import type { JailDevice, JailLimits, JailMount, JailPort, JailSpec } from '../runtime.ts';

/** What may be done with what is at a path and below it. */
export type FileAccess = 'none' | 'read' | 'write';

/** One path inside the root, with its access class. */
export interface FileRule {
  /** Absolute, inside the root, without a slash at its end. */
  path: string;
  access: FileAccess;
  /** Whether programs may be started from it. */
  execute: boolean;
  from: 'image' | 'volume' | 'system' | 'mask';
}

/** What a jail may reach. */
export type NetworkPolicy = 'none' | 'attached' | 'host' | 'shared';

/** Operations that no jail may do, whoever it runs as. */
export type Denial = 'mount' | 'mknod' | 'chroot' | 'setuid' | 'modules' | 'reboot' | 'ptrace-others';

/** See the module's head. */
export interface JailPolicy {
  /** By path; always has `/`. */
  files: FileRule[];
  network: NetworkPolicy;
  ports: JailPort[];
  /** Whether System V and POSIX IPC objects are its own, the host's or another jail's. */
  ipc: 'private' | 'host' | 'shared';
  /** Whom it may signal and inspect. */
  signals: 'jail' | 'host' | 'shared';
  devices: JailDevice[];
  limits: JailLimits;
  /** The user as the image calls it. */
  user: string;
  terminal: boolean;
  denials: ReadonlySet<Denial>;
}

/** Denied to everything but a privileged jail. */
const DENIALS: readonly Denial[] = [
  'mount',
  'mknod',
  'chroot',
  'setuid',
  'modules',
  'reboot',
  'ptrace-others',
];

/** File systems of the kernel, which are not part of the image and have rules of their own. */
const KERNEL_KINDS: ReadonlySet<JailMount['kind']> = new Set(['proc', 'sysfs', 'cgroup', 'mqueue']);

/** `/a//b/./c/` as `/a/b/c`; `..` stays inside the root. */
export function normalPath(path: string): string {
  const parts: string[] = [];
  for (const part of path.split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  return `/${parts.join('/')}`;
}

/** The policy of a specification. */
export function jailPolicy(spec: JailSpec): JailPolicy {
  const { namespaces } = spec;
  const whose = (mode: JailSpec['namespaces']['pid']): 'private' | 'host' | 'shared' =>
    typeof mode === 'object' ? 'shared' : mode;
  const network = whose(namespaces.network);
  const pid = whose(namespaces.pid);
  return {
    files: fileRules(spec),
    network: network === 'private' ? (spec.network.attached ? 'attached' : 'none') : network,
    ports: spec.network.ports,
    ipc: whose(namespaces.ipc),
    signals: pid === 'private' ? 'jail' : pid,
    devices: spec.devices,
    limits: spec.limits,
    user: spec.process.user,
    terminal: spec.process.terminal,
    denials: new Set(spec.privileged ? [] : DENIALS),
  };
}

/** Rules in the order of their making; a later one for the same path replaces the earlier, as a later mount covers it. */
function fileRules(spec: JailSpec): FileRule[] {
  const rules = new Map<string, FileRule>();
  const add = (path: string, rule: Omit<FileRule, 'path'>): void => {
    const normal = normalPath(path);
    // A mount covers what was mounted below its target before.
    for (const other of rules.keys()) if (isBelow(other, normal)) rules.delete(other);
    rules.set(normal, { path: normal, ...rule });
  };
  add('/', { access: spec.readOnlyRoot ? 'read' : 'write', execute: true, from: 'image' });
  for (const { kind, target, readOnly, options } of spec.mounts) {
    const access = readOnly || options.includes('ro') || KERNEL_KINDS.has(kind) ? 'read' : 'write';
    const from = kind === 'bind' ? 'volume' : 'system';
    add(target, { access, execute: !options.includes('noexec'), from });
  }
  for (const path of spec.readonlyPaths) freeze(rules, normalPath(path));
  for (const path of spec.maskedPaths) add(path, { access: 'none', execute: false, from: 'mask' });
  return [...rules.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** What can be written at a path and below it can no more. */
function freeze(rules: Map<string, FileRule>, path: string): void {
  const here = ruleFor([...rules.values()], path);
  for (const [key, rule] of rules)
    if (isBelow(key, path) && rule.access === 'write') rules.set(key, { ...rule, access: 'read' });
  const access = here.access === 'write' ? 'read' : here.access;
  rules.set(path, { ...here, path, access });
}

/** Whether `path` is `folder` or in it. Both normal. */
export function isBelow(path: string, folder: string): boolean {
  return folder === '/' || path === folder || path.startsWith(`${folder}/`);
}

/** The rule that decides about a path: the one with the longest path. @param path normal. */
export function ruleFor(files: readonly FileRule[], path: string): FileRule {
  let best: FileRule | undefined;
  for (const rule of files)
    if (isBelow(path, rule.path) && (best === undefined || rule.path.length > best.path.length)) best = rule;
  if (best === undefined) throw new Error('a policy has a rule for the root');
  return best;
}
