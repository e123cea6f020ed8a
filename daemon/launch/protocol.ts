/**
 * What the daemon and a launcher say to each other: lines of JSON on descriptor {@link CONTROL_FD}, one question at a
 * time. The launcher is trusted code, but from `run` on it lives inside the jail: the daemon takes nothing from it but
 * a descriptor number, which it copies with pidfd_getfd and uses as a terminal only.
 *
 *   daemon                      launcher
 *   prepare (JailSpec)      ->  own namespaces
 *                           <-  unshared                the network may be attached now
 *                           <-  ready {terminalFd?}     root file system, devices, terminal
 *   run                     ->  identity, limits, program look-up
 *                           <-  executing {pid?}        then execve closes the channel
 *
 * or, for a further process, `join` instead of `prepare`, without `unshared`. A launcher outside of the jail's pid
 * namespace starts the program as its child, whose number is `pid`, and waits to be killed, which leaves the child to
 * the daemon. Or only `hold`, for a launcher that keeps
 * namespaces for somebody else until the channel is closed; or `confine` for a process of a jail without namespaces,
 * first or further, also without `unshared`. Each failing step answers `failed` and
 * ends the launcher.
 */
import type { UserMaps } from '#common/id-map';
import type { JailSpec, ProcessSpec } from '../runtime/runtime.ts';

/** The launcher's end of the channel; a pidfd of the jail's process 1 follows for `join`. */
export const CONTROL_FD = 3;
/** A pidfd of the jail's process 1, for `join`. */
export const TARGET_FD = 4;

/** A cgroup hierarchy of the host. Version 2 has one, without controllers here. */
export interface CgroupMount {
  /** Where the host has it mounted. */
  path: string;
  /** The jail's group in it. */
  group: string;
  /** What mounts it again: `['cpu']`, `['none', 'name=systemd']`; undefined for version 2. */
  options: string[] | undefined;
}

/** A compiled seccomp profile in base64; undefined for none. */
export type SeccompFilter = string | undefined;

/** What keeps a process of a jail without namespaces where it belongs. */
export interface Confinement {
  /** Its mounts are made by the first process; further ones find them. */
  spec: JailSpec;
  first: boolean;
  /** The user and the group of all processes of the jail. */
  owner: number;
  landlock: LandlockRules;
}

/** What the kernel's security modules make of a program. */
export interface ProgramLabels {
  /** An AppArmor profile. */
  apparmor?: string;
  /** A whole SELinux label. */
  selinux?: string;
}

/** What Landlock lets through; not there, and reported as such, where the kernel has no Landlock. */
export interface LandlockRules {
  /** Paths inside the root; one that is missing grants nothing. */
  paths: { path: string; write: boolean; execute: boolean }[];
  /** Whether device nodes may be made in them, where the capabilities allow it. */
  nodes: boolean;
  /** Whether TCP ports may be bound and connected to, or which. */
  tcp: boolean | { connect: number[]; bind: number[] };
  /** Whether abstract sockets of and signals to processes outside are possible. */
  outside: boolean;
}

/** A user namespace that is there already, and how its numbers are the machine's. */
export interface UserNamespace {
  /** The number, for the host's /proc, of a process in it. For a new jail that process also keeps its other namespaces. */
  pid: number;
  maps: UserMaps;
}

/** What the daemon tells a launcher. */
export type ToLauncher =
  | {
      type: 'prepare';
      spec: JailSpec;
      cgroups: CgroupMount[];
      filter: SeccompFilter;
      user?: UserNamespace;
      labels?: ProgramLabels;
      landlock?: LandlockRules;
    }
  /**
   * `target`: process 1 of the jail, for a launcher outside; without, it is {@link TARGET_FD}. `terminal`: the number in
   * the jail's devpts of the terminal that was opened with the jail; without, the process gets one of its own.
   */
  | {
      type: 'join';
      process: ProcessSpec;
      filter: SeccompFilter;
      target?: number;
      terminal?: number;
      user?: UserNamespace;
      labels?: ProgramLabels;
      landlock?: LandlockRules;
    }
  | {
      type: 'confine';
      process: ProcessSpec;
      filter: SeccompFilter;
      confinement: Confinement;
      user?: undefined;
      labels?: undefined;
      landlock?: undefined;
    }
  | { type: 'hold'; namespaces: JailSpec['namespaces'] }
  | { type: 'run' };

/** Why a program was not started, where the daemon answers with an exit code of its own. */
export type FailureKind =
  | 'program-not-found'
  | 'program-not-permitted'
  | 'user-not-found'
  | 'no-room'
  | 'step';

/** What a launcher tells the daemon. */
export type FromLauncher =
  | { type: 'unshared' }
  | { type: 'ready'; terminalFd?: number }
  | { type: 'executing'; pid?: number }
  | { type: 'failed'; kind: FailureKind; step: string; code: string; message: string };
