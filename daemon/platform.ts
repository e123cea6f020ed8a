/** What the daemon asks of the operating system at its edge, and the only file here that knows which one it is. */
import { execFile } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { networkInterfaces, release } from 'node:os';
import { delimiter, join } from 'node:path';
import type { ServeNames } from './network/proxied/jails.ts';

/** Start time of a process in the kernel's own unit, or '' when there is no such process. With the pid it names a process for good. */
export async function processStartTime(pid: number): Promise<string> {
  if (!(pid > 0)) return '';
  // ps(1) has it to the second only, which is enough for numbers that take long to come round again.
  if (process.platform === 'darwin') return firstLine('ps', ['-o', 'lstart=', '-p', String(pid)]);
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  // proc(5): the command in parentheses may hold spaces and parentheses; starttime is field 22.
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
}

/**
 * Resets the connections of a container, but those whose other end is spared.
 * @throws SyscallError EOPNOTSUPP where the kernel can't
 */
export async function cutConnections(pid: number, spared: (remote: string) => boolean): Promise<void> {
  (await import('#common/native/connections')).cutConnections(pid, spared);
}

/** What a program says, or '' when it fails. */
function firstLine(program: string, args: string[]): Promise<string> {
  return new Promise((resolve) => {
    execFile(program, args, (error, stdout) => resolve(error ? '' : (stdout.split('\n')[0] ?? '').trim()));
  });
}

/** A thing that a host must have. */
export interface Requirement {
  met: boolean;
  /** What is missing and how to get it. */
  remedy: string;
  /** An ordinary user gets it by a user namespace (rootless.ts). */
  isRoot?: true;
}

function usable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** Whether networks can carry packets: a container needs a namespace of its own for it. */
export const carriesPackets: boolean = process.platform === 'linux';

/** Whether host folders can be mounted by a server of ours. */
export const servesFolders: boolean = process.platform === 'linux';

/** How look-ups of names are answered on a socket, where the system's can be led to one. */
export async function serveNames(): Promise<ServeNames | undefined> {
  if (process.platform !== 'darwin') return undefined;
  return (await import('./network/dnssd/server.ts')).namesServer();
}

/** Whether an image can be made of this host's programs: a Mac's need a linker and a cache that nobody may copy. */
export const hasHostImage: boolean = process.platform === 'linux';

/** What the daemon can't do without on this host. */
export function requirements(): Requirement[] {
  const root = {
    met: process.getuid?.() === 0,
    remedy:
      process.platform === 'darwin'
        ? 'drydock needs root to give each container a user of its own: run it with sudo'
        : 'drydock needs root for namespaces, mounts and cgroups: run it with sudo',
  };
  if (process.platform === 'darwin') return [root];
  if (process.platform !== 'linux')
    return [
      { met: false, remedy: `there is no runtime for ${process.platform}: run the daemon on Linux or macOS` },
    ];
  return [
    { ...root, isRoot: true },
    {
      met: usable('/dev/net/tun'),
      remedy:
        '/dev/net/tun is missing, so containers could have no network: run `modprobe tun`, or give this machine the device (`mkdir -p /dev/net && mknod /dev/net/tun c 10 200`)',
    },
    {
      met: usable('/dev/fuse'),
      remedy:
        '/dev/fuse is missing, so host folders could not be mounted: run `modprobe fuse`, or give this machine the device (`mknod /dev/fuse c 10 229`)',
    },
  ];
}

/** Where a program is in PATH, or undefined. */
export function findProgram(name: string): string | undefined {
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not in this one.
    }
  }
  return undefined;
}

/** Names of the host for `docker info`. */
export async function hostFacts(): Promise<{
  operatingSystem: string;
  osVersion: string;
  kernelVersion: string;
  architecture: string;
}> {
  const text = await readFile('/etc/os-release', 'utf8').catch(() => '');
  const field = (name: string): string => new RegExp(`^${name}="?([^"\\n]*)"?$`, 'm').exec(text)?.[1] ?? '';
  const architectures: Record<string, string> = { x64: 'x86_64', arm64: 'aarch64' };
  return {
    operatingSystem: field('PRETTY_NAME') || process.platform,
    osVersion: field('VERSION_ID'),
    kernelVersion: release(),
    architecture: architectures[process.arch] ?? process.arch,
  };
}

/** IPv4 subnets that this host reaches directly or by route, as `a.b.c.d/n`: a network of ours should hide none of them. */
export async function hostSubnets(): Promise<string[]> {
  const found = new Set<string>();
  for (const entries of Object.values(networkInterfaces()))
    for (const entry of entries ?? []) if (entry.family === 'IPv4' && entry.cidr) found.add(entry.cidr);
  // proc(5): destination and mask are hexadecimal in the machine's byte order; the default route has mask 0.
  const routes = await readFile('/proc/net/route', 'utf8').catch(() => '');
  for (const line of routes.split('\n').slice(1)) {
    const [, destination = '', , , , , , mask = ''] = line.split('\t');
    if (!/^[0-9A-F]{8}$/.test(destination) || !/^[0-9A-F]{8}$/.test(mask)) continue;
    const bytes = Buffer.from(destination, 'hex').reverse();
    const prefix = [...Number.parseInt(mask, 16).toString(2)].filter((bit) => bit === '1').length;
    if (prefix > 0) found.add(`${bytes.join('.')}/${prefix}`);
  }
  return [...found];
}
