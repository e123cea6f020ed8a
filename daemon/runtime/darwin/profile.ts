/**
 * From a jail's policy to a seatbelt profile (the language of sandbox_init(3), SBPL). Pure.
 *
 * How rules of a profile take precedence over each other is nowhere written down, and what has been observed fits more
 * than one model. So a profile here denies by default and then only allows, every operation in one rule: it means the
 * same whichever rule wins. What is denied below an allowed path is cut out of the rule itself, with `require-not`. An
 * operation that is not listed is denied, among them mounts, device nodes, chroot, setuid bits, kernel extensions and
 * jobs of launchd.
 *
 * Paths are parameters, so that no path can be read as a rule.
 */
import { type FileRule, isBelow, type JailPolicy } from '../spec/policy.ts';
import type { FolderLink } from './plan.ts';

/** How a jail is kept in its root. */
export type RootMode =
  /** chroot(2): the image's paths are what it says. */
  | 'chroot'
  /** Only the profile: the image's files are where the host has them, and the host's libraries can be used. */
  | 'confine';

/** Where a jail is on the host. */
export interface Place {
  mode: RootMode;
  /** The root, with symbolic links resolved, since that is what profiles match. */
  rootPath: string;
  /** Folders of the host that the image has links to, with symbolic links in them resolved. */
  links?: readonly FolderLink[];
  /** The terminal of the process. */
  terminalPath?: string;
  /** Of the proxy by which it reaches its networks. */
  proxyPort?: number;
  /** The socket that answers its look-ups of names. */
  namesPath?: string;
}

/** A profile's text, and the values of its parameters. */
export interface SeatbeltProfile {
  text: string;
  parameters: Record<string, string>;
}

/** Every way to change a file but to make it setuid, which `file-write*` would include. */
const WRITE_OPERATIONS = [
  ...['acl', 'create', 'data', 'finderinfo', 'flags', 'mode', 'owner', 'times', 'unlink', 'xattr'].map(
    (what) => `file-write-${what}`,
  ),
  'file-link',
  'file-clone',
];
const READ_OPERATIONS = ['file-read*', 'file-test-existence'];
const EXECUTE_OPERATIONS = ['process-exec*', 'file-map-executable'];

/** What the dynamic linker and the C library use of the host, with programs. */
const HOST_PROGRAMS = [
  '/usr/lib',
  '/System/Library',
  '/System/Cryptexes/OS',
  '/System/Volumes/Preboot/Cryptexes/OS',
];
const HOST_DATA = ['/usr/share/zoneinfo', '/private/var/db/timezone'];
/** Look-ups of users, the log and notifications: without them the C library's own calls fail. */
const SERVICES = [
  'com.apple.system.opendirectoryd.libinfo',
  'com.apple.logd',
  'com.apple.system.notification_center',
];
const SYSCTLS = ['ostype', 'osrelease', 'osproductversion', 'argmax', 'usrstack64'].map(
  (name) => `kern.${name}`,
);
const SYSCTL_PREFIX = 'hw.';

/** What may be done below a path of the host. */
interface Grant {
  path: string;
  read: boolean;
  write: boolean;
  execute: boolean;
}

const grantOf = (path: string, { access, execute }: Pick<FileRule, 'access' | 'execute'>): Grant => ({
  path,
  read: access !== 'none',
  write: access === 'write',
  execute: execute && access !== 'none',
});

/** A path of the image as the host has it. */
export function hostPath(rootPath: string, path: string): string {
  return path === '/' ? rootPath : rootPath + path;
}

/** All grants; of several for one path, what all of them grant. */
function grants(policy: JailPolicy, { mode, rootPath, links = [] }: Place): Grant[] {
  const all = new Map<string, Grant>();
  const add = (grant: Grant): void => {
    const other = all.get(grant.path);
    if (!other) all.set(grant.path, grant);
    else for (const what of ['read', 'write', 'execute'] as const) other[what] = other[what] && grant[what];
  };
  for (const rule of policy.files) {
    add(grantOf(hostPath(rootPath, rule.path), rule));
    // Whether profiles see the paths of a chroot or those of the host is not known: both.
    if (mode === 'chroot') add(grantOf(rule.path, rule));
    for (const { source, path } of links)
      if (isBelow(rule.path, path)) add(grantOf(source + rule.path.slice(path.length), rule));
  }
  if (mode === 'confine') {
    for (const path of HOST_PROGRAMS) add({ path, read: true, write: false, execute: true });
    for (const path of HOST_DATA) add({ path, read: true, write: false, execute: false });
  }
  return [...all.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Numbers parameters in the order of their first use. */
class Parameters {
  readonly values: Record<string, string> = {};
  readonly #names = new Map<string, string>();

  of(value: string): string {
    let name = this.#names.get(value);
    if (name === undefined) {
      name = `P${this.#names.size}`;
      this.#names.set(value, name);
      this.values[name] = value;
    }
    return `(param "${name}")`;
  }
}

/** The filters that together match the paths for which the longest rule grants `what`. */
function pathFilters(all: Grant[], what: 'read' | 'write' | 'execute', parameters: Parameters): string[] {
  return all
    .filter((grant) => grant[what])
    .map(({ path }) => {
      const denied = all.filter((other) => !other[what] && other.path !== path && isBelow(other.path, path));
      // Below one that is cut out, nothing more needs to be.
      const cuts = denied.filter(
        (one) => !denied.some((other) => other !== one && isBelow(one.path, other.path)),
      );
      const subpath = `(subpath ${parameters.of(path)})`;
      if (cuts.length === 0) return subpath;
      return `(require-all ${subpath} ${cuts.map((cut) => `(require-not (subpath ${parameters.of(cut.path)}))`).join(' ')})`;
    });
}

const any = (filters: string[]): string => `(require-any ${filters.join(' ')})`;

/** The profile of a jail. @throws nothing: what a profile can't say, checkPromises has refused. */
export function seatbeltProfile(policy: JailPolicy, place: Place): SeatbeltProfile {
  const { mode, rootPath, terminalPath, proxyPort, namesPath } = place;
  const parameters = new Parameters();
  const all = grants(policy, place);
  const readable = pathFilters(all, 'read', parameters);
  const writable = pathFilters(all, 'write', parameters);
  const executable = pathFilters(all, 'execute', parameters);
  const literal = (path: string): string => `(literal ${parameters.of(path)})`;
  // In a chroot they are nodes of the image.
  const devices = mode === 'confine' ? policy.devices : [];
  const terminals = terminalPath === undefined ? [] : [literal(terminalPath)];
  const devicesWith = (access: string): string[] =>
    devices.filter((device) => device.access.includes(access)).map(({ path }) => literal(path));

  const lines = ['(version 1)', '(deny default)', '(allow process-fork)'];
  const allow = (operations: string[], filters: string[]): void => {
    if (filters.length > 0) lines.push(`(allow ${operations.join(' ')} ${any(filters)})`);
  };
  allow(EXECUTE_OPERATIONS, executable);
  // A path's folders must be there to be walked; what else is in them stays hidden.
  const way = mode === 'confine' ? [literal('/')] : [];
  allow(READ_OPERATIONS, [...readable, ...way, ...devicesWith('r'), ...terminals]);
  if (mode === 'confine') allow(['file-read-metadata'], [`(path-ancestors ${parameters.of(rootPath)})`]);
  allow(
    WRITE_OPERATIONS.filter((operation) => operation !== 'file-write-data'),
    writable,
  );
  allow(['file-write-data'], [...writable, ...devicesWith('w'), ...terminals]);
  allow(['file-ioctl'], [...writable, ...devicesWith('r'), ...terminals]);
  if (policy.terminal) lines.push('(allow pseudo-tty)');

  const signals = policy.signals === 'host' ? '' : ' (target same-sandbox)';
  lines.push(`(allow signal process-info*${signals})`);
  lines.push('(allow mach-priv-task-port (target same-sandbox))');
  allow(
    ['sysctl-read'],
    [`(sysctl-name-prefix "${SYSCTL_PREFIX}")`, ...SYSCTLS.map((name) => `(sysctl-name "${name}")`)],
  );
  allow(
    ['mach-lookup'],
    SERVICES.map((name) => `(global-name "${name}")`),
  );
  if (policy.ipc === 'host') lines.push('(allow ipc-posix-sem* ipc-posix-shm* ipc-sysv*)');
  const sockets = namesPath === undefined ? readable : [...readable, literal(namesPath)];
  lines.push(...networkRules(policy, { sockets, writable, proxyPort }));
  return { text: `${lines.join('\n')}\n`, parameters: parameters.values };
}

/**
 * Local sockets in the jail's own files always; all of IP with the host's network; with networks of its own the port of
 * its proxy and those that it listens on; else nothing of IP.
 */
function networkRules(
  policy: JailPolicy,
  { sockets, writable, proxyPort }: { sockets: string[]; writable: string[]; proxyPort: number | undefined },
): string[] {
  const host = policy.network === 'host';
  const domains = ['AF_UNIX', ...(host || proxyPort !== undefined ? ['AF_INET', 'AF_INET6'] : [])];
  const ports = policy.ports.filter(({ protocol }) => protocol === 'tcp').map(({ port }) => port);
  const reach = proxyPort === undefined ? [] : [proxyPort, ...ports];
  const listen = proxyPort === undefined ? [] : ports;
  const own = [
    ...writable.map((filter) => `(local unix-socket ${filter})`),
    ...(host ? ['(local ip "*:*")'] : listen.map((port) => `(local ip "*:${port}")`)),
  ];
  const outbound = [
    ...sockets.map((filter) => `(remote unix-socket ${filter})`),
    ...(host ? ['(remote ip "*:*")'] : reach.map((port) => `(remote ip "localhost:${port}")`)),
  ];
  const rule = (operation: string, filters: string[]): string[] =>
    filters.length > 0 ? [`(allow ${operation} ${any(filters)})`] : [];
  return [
    `(allow system-socket ${any(domains.map((domain) => `(socket-domain ${domain})`))})`,
    ...rule('network-outbound', outbound),
    ...rule('network-bind', own),
    ...rule('network-inbound', own),
  ];
}
