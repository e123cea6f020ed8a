/** From a specification to what a launcher on Darwin does, and to the report of it. Pure. */

import { DrydockError } from '#common/errors';
import { DARWIN_RLIMITS } from '#common/native/darwin/calls';
import type { JailAccess } from '../../network/proxied/jails.ts';
import { commonRows, networkRow, plainProcess } from '../plain/promises.ts';
import type { JailReportRow, JailSpec, ProcessSpec } from '../runtime.ts';
import { jailPolicy, normalPath } from '../spec/policy.ts';
import { hostPath, type RootMode, type SeatbeltProfile, seatbeltProfile } from './profile.ts';

/** What is put into a root before its first program runs. Paths are the image's. */
export interface Furniture {
  folders: string[];
  files: { source: string; path: string }[];
  /** Folders of the host, which are linked to where they are. */
  links: FolderLink[];
  devices: { hostPath: string; path: string }[];
}

/** A folder of the host, and where the image has it. */
export interface FolderLink {
  source: string;
  path: string;
}

/** All that a launcher must know beside the process. */
export interface DarwinPlan {
  mode: RootMode;
  rootPath: string;
  owner: number;
  profile: SeatbeltProfile;
  /** Undefined for a further process, which finds it. */
  furniture?: Furniture;
  /** Numbers of setrlimit(2); -1 means no limit. */
  limits: { resource: number; soft: number; hard: number }[];
  background: boolean;
  throttleDisk: boolean;
}

/** docker's usual values; what asks for less than half of them gives way to others. */
const CPU_SHARES = 1024;
const BLKIO_WEIGHT = 500;

/** What a path of the host is, and where it really is. @throws Error when there is nothing */
export type Look = (path: string) => { isFile: boolean; realPath: string };

/** @throws DrydockError ERR_JAIL_PROMISE */
function furnish(spec: JailSpec, mode: RootMode, look: Look): Furniture {
  const furniture: Furniture = { folders: [], files: [], links: [], devices: [] };
  for (const { kind, target, source = '' } of spec.mounts) {
    const path = normalPath(target);
    if (kind === 'tmpfs') furniture.folders.push(path);
    if (kind !== 'bind') continue;
    const { isFile, realPath } = look(source);
    if (isFile) furniture.files.push({ source, path });
    else if (mode === 'confine') furniture.links.push({ source: realPath, path });
    else
      throw new DrydockError(
        'ERR_JAIL_PROMISE',
        `A jail on Darwin with a root of its own cannot show ${source} at ${target}: there are no bind mounts. Copy what it needs into the image or with docker cp, or have the images confined in place (csrutil enable).`,
      );
  }
  // Without a root of its own a program uses the host's.
  if (mode === 'chroot') furniture.devices = spec.devices.map(({ hostPath, path }) => ({ hostPath, path }));
  return furniture;
}

/** @param terminalPath the process's terminal. @throws DrydockError ERR_JAIL_PROMISE */
export function darwinPlan(
  spec: JailSpec,
  process: ProcessSpec,
  place: { mode: RootMode; owner: number; terminalPath?: string; first: boolean; access?: JailAccess },
  look: Look,
): DarwinPlan {
  const { mode, owner, terminalPath, first, access } = place;
  const { rootPath, limits } = spec;
  const policy = { ...jailPolicy(spec), terminal: process.terminal };
  const known = plainProcess(spec, process).rlimits.flatMap(({ name, soft, hard }) => {
    const resource = DARWIN_RLIMITS[name.toLowerCase().replace(/^rlimit_/, '')];
    return resource === undefined ? [] : [{ resource, soft, hard }];
  });
  const furniture = furnish(spec, mode, look);
  const where = {
    mode,
    links: furniture.links,
    rootPath,
    ...(terminalPath !== undefined && { terminalPath }),
    ...(access && { proxyPort: access.proxyPort }),
    ...(access?.namesPath !== undefined && { namesPath: access.namesPath }),
  };
  return {
    mode,
    rootPath,
    owner,
    profile: seatbeltProfile(policy, where),
    ...(first && { furniture }),
    limits: known,
    background: (limits.cpuShares || CPU_SHARES) < CPU_SHARES / 2,
    throttleDisk: (limits.blkioWeight || BLKIO_WEIGHT) < BLKIO_WEIGHT / 2,
  };
}

/** A path of the image as the process has it. */
export function seenPath({ mode, rootPath }: Pick<DarwinPlan, 'mode' | 'rootPath'>, path: string): string {
  return mode === 'chroot' ? path : hostPath(rootPath, normalPath(path));
}

/** The environment with PATH where the process finds its folders. */
export function seenEnvironment(plan: Pick<DarwinPlan, 'mode' | 'rootPath'>, env: string[]): string[] {
  return env.map((entry) => {
    if (!entry.startsWith('PATH=')) return entry;
    const folders = entry.slice('PATH='.length).split(':').filter(Boolean);
    return `PATH=${folders.map((folder) => seenPath(plan, folder)).join(':')}`;
  });
}

/** See Runtime.report. */
export function darwinReport(spec: JailSpec, owner: number, mode: RootMode): JailReportRow[] {
  const policy = jailPolicy(spec);
  const { limits } = spec;
  const unknown = spec.process.rlimits
    .map(({ name }) => name)
    .filter((name) => !(name.toLowerCase().replace(/^rlimit_/, '') in DARWIN_RLIMITS));
  const partly = new Map<string, string>();
  if (limits.cpuShares)
    partly.set('CPU shares', 'below half of the usual it gives way to all others, else nothing');
  if (limits.blkioWeight)
    partly.set('block IO weight', 'below half of the usual its disk requests give way, else nothing');
  if (limits.memoryBytes)
    partly.set(
      'memory',
      'a hard limit of each process where the kernel confirms it, and the sum of all looked at several times a second',
    );
  const rows = commonRows(spec, policy, owner).map((row) => {
    const how = partly.get(row.feature);
    return how === undefined ? row : { ...row, got: 'partial' as const, how };
  });
  return [
    {
      feature: 'root file system',
      asked: spec.readOnlyRoot ? 'read-only' : 'writable',
      got: mode === 'chroot' ? 'full' : 'partial',
      how:
        mode === 'chroot'
          ? 'chroot as an ordinary user, and a seatbelt profile'
          : 'a seatbelt profile: programs see the image below its folder on the host, and the host’s libraries',
    },
    networkRow(policy, { none: 'no sockets but local ones, by the profile', confined: 'the profile' }),
    {
      feature: 'ipc namespace',
      asked: policy.ipc,
      got: policy.ipc === 'private' ? 'partial' : 'full',
      how: policy.ipc === 'private' ? 'System V and POSIX IPC are denied' : 'the host’s, as asked',
    },
    {
      feature: 'system calls',
      asked: spec.seccomp === 'unconfined' ? 'none' : 'seccomp profile',
      got: 'none',
      how: 'there is no filter of system calls; the seatbelt profile decides about operations',
    },
    {
      feature: 'volumes',
      asked: 'files and folders of the host',
      got: 'partial',
      how:
        mode === 'chroot'
          ? 'files are copied in at the start, folders are refused'
          : 'files are copied in at the start; folders are linked to, with the rights that everybody has there',
    },
    {
      feature: 'memory file systems',
      asked: spec.mounts.some(({ kind }) => kind === 'tmpfs') ? 'tmpfs' : 'none',
      got: 'partial',
      how: 'folders of the container’s files, without limits of their size',
    },
    ...(unknown.length > 0
      ? [
          {
            feature: 'ulimits',
            asked: unknown.join(','),
            got: 'none' as const,
            how: 'Darwin has none of these',
          },
        ]
      : []),
    ...rows,
  ];
}
