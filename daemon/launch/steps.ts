/**
 * The steps of a launch that make a jail or enter one. Their order is fixed: what a step needs (the host's /proc, its
 * propagation, the right to mount) is taken away by a later one. Each has a name, with which its failure is told.
 */
import { closeSync, constants, openSync, writeFileSync } from 'node:fs';
import { outsideId } from '#common/id-map';
import type { LabelModule } from '#common/native/labels';
import type { PseudoTerminal } from '#common/native/tty';
import type { JailSpec, NamespaceMode, ProcessSpec } from '../runtime/runtime.ts';
import { step } from './failure.ts';
import { enterConfinement } from './plain.ts';
import { type ProgramLabels, TARGET_FD, type ToLauncher, type UserNamespace } from './protocol.ts';
import { enterRoot, openOwnTerminal, openPlaces } from './root.ts';
import type { System } from './system.ts';

/** A process's terminal; without a master where the daemon has that already. */
export type EnteredTerminal = Pick<PseudoTerminal, 'slave'> & Partial<PseudoTerminal>;

/** Namespaces by the flag that makes them and the file that names them. */
const KINDS = [
  ['network', 'CLONE_NEWNET', 'net'],
  ['ipc', 'CLONE_NEWIPC', 'ipc'],
  ['uts', 'CLONE_NEWUTS', 'uts'],
  ['cgroup', 'CLONE_NEWCGROUP', 'cgroup'],
] as const;

/**
 * Makes the jail's own namespaces, mounts among them, and joins those of others.
 *
 * @param keeper the number of a process that has made the jail's own ones already.
 */
export function enterNamespaces(system: System, namespaces: JailSpec['namespaces'], keeper?: number): void {
  let own = system.CLONE_NEWNS;
  // By path: this process may be in a pid namespace where others have no numbers.
  const joinOne = (pid: number, file: string, flag: number): void => {
    const fd = openSync(`/proc/${pid}/ns/${file}`, 'r');
    system.setns(fd, flag);
    closeSync(fd);
  };
  for (const [kind, name, file] of KINDS) {
    const flag = system[name];
    const mode: NamespaceMode = namespaces[kind];
    if (mode === 'private') own |= flag;
    else if (mode !== 'host')
      step(`join the ${kind} namespace of process ${mode.pid}`, () => joinOne(mode.pid, file, flag));
  }
  step('make namespaces', () => {
    if (keeper === undefined) return system.unshare(own);
    for (const [, name, file] of KINDS) if (own & system[name]) joinOne(keeper, file, system[name]);
    // A thread that joins mounts must share its folders with no other.
    system.unshare(system.CLONE_FS);
    joinOne(keeper, 'mnt', system.CLONE_NEWNS);
  });
  if (namespaces.network === 'private') step('bring up the loopback interface', () => system.loopbackUp());
}

/** Through the host's /proc: which namespace a sysctl belongs to is decided by who writes. */
function setKernelParameters(spec: JailSpec): void {
  for (const [name, value] of Object.entries(spec.sysctls)) {
    step(`set ${name}`, () => writeFileSync(`/proc/sys/${name.replaceAll('.', '/')}`, value));
  }
}

/** What a launcher has when it is in its jail. */
export interface Prepared {
  /** The process's terminal, if it wants one. */
  terminal: EnteredTerminal | undefined;
  /** The user namespace to enter at the end, open. */
  userFd: number | undefined;
  /** What is said to the security modules at the end. */
  labels: OpenLabel[];
}

/** A label for the program, and where it is to be written. */
interface OpenLabel {
  module: LabelModule;
  label: string;
  fd: number;
}

/** Opens the files of the host's /proc, which is not to be seen when they are written. */
function openLabels(system: System, labels: ProgramLabels | undefined): OpenLabel[] {
  return Object.entries(labels ?? {}).map(([name, label]) => {
    const module = name as LabelModule;
    return { module, label, fd: step(`ask for the label of ${module}`, () => system.openExecLabel(module)) };
  });
}

/**
 * Opens a user namespace, and makes the files that this process makes from now on those of its root. Where that is not
 * the machine's root, the rights of this process must not depend on it.
 */
function openUserNamespace(system: System, { pid, maps }: UserNamespace): number {
  return step('open the user namespace', () => {
    const fd = openSync(`/proc/${pid}/ns/user`, 'r');
    system.detachCapabilitiesFromIds(true);
    system.setFileIdentity(outsideId(maps.uids, 0) ?? 0, outsideId(maps.gids, 0) ?? 0);
    return fd;
  });
}

function setOomScore(spec: ProcessSpec): void {
  const score = spec.oomScoreAdj;
  if (score === undefined) return;
  step('set the OOM score', () => writeFileSync('/proc/self/oom_score_adj', `${score}`));
}

/**
 * Makes the world of a process, or enters one that is there.
 *
 * @param unshared called as soon as a new jail's network namespace is there.
 */
export function enter(
  system: System,
  message: ToLauncher & { type: 'prepare' | 'join' | 'confine' },
  unshared: () => void,
): Prepared {
  switch (message.type) {
    case 'prepare':
      return prepare(system, message, unshared);
    case 'join':
      return join(system, message);
    case 'confine':
      setOomScore(message.process);
      return {
        terminal: enterConfinement(system, message.process, message.confinement),
        userFd: undefined,
        labels: [],
      };
  }
}

/** Makes the world of a jail's first process, up to and with its root file system. */
function prepare(system: System, message: ToLauncher & { type: 'prepare' }, unshared: () => void): Prepared {
  const { cgroups, spec, user } = message;
  step('make a session keyring', () => system.newSessionKeyring(`_ses.${spec.id}`));
  setOomScore(spec.process);
  const labels = openLabels(system, message.labels);
  const places = openPlaces(system, spec);
  const userFd = user && openUserNamespace(system, user);
  enterNamespaces(system, spec.namespaces, user?.pid);
  unshared();
  if (spec.namespaces.uts === 'private') {
    step('set the host name', () => system.setHostname(spec.hostname));
    if (spec.domainname) step('set the domain name', () => system.setDomainname(spec.domainname));
  }
  setKernelParameters(spec);
  const terminal = enterRoot(system, spec, cgroups, places);
  return { terminal, userFd, labels };
}

/** Enters the world of a jail that runs. */
function join(
  system: System,
  { process: spec, target, terminal, user, labels: wanted }: ToLauncher & { type: 'join' },
): Prepared {
  setOomScore(spec);
  const labels = openLabels(system, wanted);
  const userFd = user && openUserNamespace(system, user);
  step('join the container', () => {
    system.unshare(system.CLONE_FS);
    const pidfd = target === undefined ? TARGET_FD : system.pidfdOpen(target);
    const all =
      (target === undefined ? 0 : system.CLONE_NEWPID) |
      system.CLONE_NEWNS |
      system.CLONE_NEWNET |
      system.CLONE_NEWIPC |
      system.CLONE_NEWUTS |
      system.CLONE_NEWCGROUP;
    system.setns(pidfd, all);
    closeSync(pidfd);
  });
  step('make a session keyring', () => system.newSessionKeyring('_ses.exec'));
  if (!spec.terminal) return { terminal: undefined, userFd, labels };
  if (terminal === undefined) return { terminal: openOwnTerminal(system), userFd, labels };
  return {
    terminal: { slave: step('open the terminal', () => openGivenTerminal(system, terminal)) },
    userFd,
    labels,
  };
}

/** The terminal that was opened with the jail, in which nothing of the image has run yet. */
function openGivenTerminal(system: System, number: number): number {
  const slave = openSync(`/dev/pts/${number}`, constants.O_RDWR | constants.O_NOCTTY);
  if (system.filesystemMagic(slave) !== system.DEVPTS_SUPER_MAGIC)
    throw new Error(`/dev/pts/${number} in the container is not a terminal`);
  return slave;
}
