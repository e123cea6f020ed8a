/**
 * The last steps of a launch, the same for a container's first process and for further ones: standard streams,
 * identity, working folder, program, limits, and execve.
 *
 * The order is forced by what each step still needs: the look-ups of folder and program happen as the wanted user;
 * limits come late, since the launcher itself may not fit into them; after the capabilities are gone nothing can be
 * undone.
 */
import { closeSync, constants, fchownSync, fstatSync, openSync, statSync, writeSync } from 'node:fs';
import { errorCode } from '#common/errors';
import { outsideId, type UserMaps } from '#common/id-map';
import { strerror } from '#common/native/libc';
import type { PseudoTerminal } from '#common/native/tty';
import { isSingleUser } from '#common/user-namespace';
import type { ProcessSpec } from '../runtime/runtime.ts';
import { type Crossing, crossInto, EXEC_FAILED_STATUS } from './crossing.ts';
import { LaunchFailure, step } from './failure.ts';
import { environment, findProgram } from './find-program.ts';
import { buildWalls } from './plain.ts';
import type { Confinement, LandlockRules, SeccompFilter, UserNamespace } from './protocol.ts';
import type { Prepared } from './steps.ts';
import type { System } from './system.ts';
import { type Identity, lookUpIdentity } from './users.ts';

const SYS_ADMIN_BIT = 1n << 21n;

/** Attaches standard streams 0 to 2, which so far are the daemon's pipes. */
function attachStreams(
  system: System,
  spec: ProcessSpec,
  terminal: Pick<PseudoTerminal, 'slave'> | undefined,
): void {
  if (terminal) {
    const { rows, columns } = spec.consoleSize ?? { rows: 0, columns: 0 };
    if (rows > 0 && columns > 0) system.setWindowSize(terminal.slave, rows, columns);
    system.setControllingTerminal(terminal.slave);
    for (const fd of [0, 1, 2]) system.duplicate(terminal.slave, fd);
    return;
  }
  if (!spec.stdin) {
    const device = openNullDevice();
    // Without one in the jail, the pipe, whose other end is closed, reads as empty just the same.
    if (device !== undefined) system.duplicate(device, 0);
  }
  for (const fd of [0, 1, 2]) system.clearCloseOnExec(fd);
}

/** Gives up the daemon's pipes: a process 1 that only waits says nothing. */
export function detachStreams(system: System): void {
  const device = openNullDevice();
  if (device === undefined) throw new Error('the container has no /dev/null');
  for (const fd of [0, 1, 2]) system.duplicate(device, fd);
}

/** Major 1, minor 3. */
const NULL_DEVICE = 0x103;

function openNullDevice(): number | undefined {
  try {
    if (statSync('/dev/null').rdev !== NULL_DEVICE) return undefined;
    return openSync('/dev/null', constants.O_RDWR | constants.O_NONBLOCK | constants.O_NOFOLLOW);
  } catch {
    return undefined;
  }
}

/**
 * Becomes the wanted user, in the wanted folder.
 *
 * @param owner the one user that a jail without namespaces runs as, whoever the image means.
 */
function takeIdentity(
  system: System,
  spec: ProcessSpec,
  maps: UserMaps | undefined,
  owner: number | undefined,
): Taken {
  const identity = step('look up the user', () => {
    const found = lookUpIdentity(spec.user, spec.groups);
    return owner === undefined ? found : { ...found, uid: owner, gid: owner, groups: [] };
  });
  const { uid, gid, groups } = step('find the ids of the user', () => outsideIdentity(identity, maps));
  step('hand over the standard streams', () => {
    for (const fd of [0, 1, 2]) {
      // The null device is the jail's, but not the user's.
      if (uid !== 0 && !(fd === 0 && !spec.stdin && !spec.terminal)) fchownSync(fd, uid, fstatSync(fd).gid);
    }
  });
  const entered = tryChangeFolder(spec.cwd);
  const bounding = new Set(
    spec.capabilities
      .map((name) => system.CAPABILITIES.indexOf(name))
      .filter((capability) => capability >= 0 && system.boundingHas(capability)),
  );
  // Where the user namespace is still to be entered, that is what gives a bounding set.
  if (!maps) step('limit capabilities', () => system.limitBoundingSet(bounding));
  step('become the user', () => {
    // The root of a user namespace has rights over what is the namespace's, whatever it is outside.
    if (maps) system.detachCapabilitiesFromIds(identity.uid === 0);
    system.keepCapabilities(true);
    system.setIdentity(uid, gid, groups);
    system.keepCapabilities(false);
  });
  if (!entered) changeFolder(spec.cwd);
  process.umask(0o022);
  return { identity, bounding };
}

/** The identity as the machine has it. */
function outsideIdentity(identity: Identity, maps: UserMaps | undefined): Omit<Identity, 'home'> {
  const find = (kind: 'uids' | 'gids', id: number): number => {
    const found = outsideId(maps?.[kind], id);
    if (found === undefined || (isSingleUser() && found !== 0))
      throw new Error(`${kind.slice(0, 3)} ${id} is not one of the container's user namespace`);
    return found;
  };
  return {
    uid: find('uids', identity.uid),
    gid: find('gids', identity.gid),
    groups: identity.groups.map((group) => find('gids', group)),
  };
}

/** As root first: the user may not be allowed to, as with a home folder that only root may enter. */
function tryChangeFolder(cwd: string): boolean {
  try {
    changeFolder(cwd);
    return true;
  } catch {
    return false;
  }
}

function changeFolder(cwd: string): void {
  // What is wrong with a working folder is told in runc's words, which name no step.
  if (!cwd.startsWith('/')) throw new LaunchFailure('step', '', '', 'Cwd must be an absolute path');
  try {
    process.chdir(cwd);
  } catch (error) {
    const code = errorCode(error) ?? '';
    const reason = strerror(code);
    throw new LaunchFailure('step', '', code, `chdir to cwd ("${cwd}") set in config.json failed: ${reason}`);
  }
  // Outside of the root getcwd says "(unreachable)"; a path such as /proc/self/fd/7 must not lead there.
  if (!process.cwd().startsWith('/'))
    throw new Error(`the working folder ${cwd} is outside of the container`);
}

/** An identity that was taken on, and what is left to it. */
interface Taken {
  identity: Identity;
  bounding: ReadonlySet<number>;
}

/** What execute() wants. */
export interface ReadyProgram {
  path: string;
  env: string[];
  /** The last steps, where they are in a user namespace. */
  crossing?: Crossing;
}

/** What becomes of a process, besides its own specification. */
export interface Conditions {
  filter: SeccompFilter;
  /** The user namespace that it is to be in. */
  user?: UserNamespace;
  /** Of a process in a jail without namespaces. */
  confinement?: Confinement;
  /** Of a process in another jail. */
  landlock?: LandlockRules;
}

/** All that a process becomes before it is the wanted program. @param entered the world it is for */
export function becomeProgram(
  system: System,
  spec: ProcessSpec,
  { terminal, userFd, labels }: Prepared,
  { filter, user, confinement, landlock = confinement?.landlock }: Conditions,
): ReadyProgram {
  step('attach the standard streams', () => attachStreams(system, spec, terminal));
  const walls = landlock && buildWalls(system, landlock);
  const taken = takeIdentity(system, spec, user?.maps, confinement?.owner);
  const env = environment(spec.env, taken.identity);
  const path = findProgram(spec.args[0] ?? '', env);
  setLimits(system, spec);
  const capabilities = capabilitiesUntilExec(system, spec, taken.identity, filter);
  const program = filter === undefined ? undefined : Buffer.from(filter, 'base64');
  for (const { module, label, fd } of labels)
    step(`label the program for ${module}`, () => {
      system.setExecLabel(fd, module, label);
      closeSync(fd);
    });
  if (userFd !== undefined) {
    const { bounding } = taken;
    return {
      path,
      env,
      crossing: { userFd, bounding, capabilities, filter: program, ...(walls && { walls }) },
    };
  }
  step('drop capabilities', () => system.setCapabilities(capabilities));
  walls?.raise();
  if (program) step('filter system calls', () => system.installSeccompFilter(program));
  return { path, env };
}

/** Without no_new_privs only CAP_SYS_ADMIN may install a filter. It ends with execve, which makes the sets anew from the bounding set. */
function capabilitiesUntilExec(
  system: System,
  spec: ProcessSpec,
  identity: Identity,
  filter: SeccompFilter,
): bigint {
  let mask = filter !== undefined && !spec.noNewPrivileges ? SYS_ADMIN_BIT : 0n;
  if (identity.uid === 0)
    for (const name of spec.capabilities) {
      const capability = system.CAPABILITIES.indexOf(name);
      if (capability >= 0 && system.boundingHas(capability)) mask |= 1n << BigInt(capability);
    }
  return mask;
}

/** Sets what survives execve and needs no capability of the user's. */
function setLimits(system: System, spec: ProcessSpec): void {
  step('set resource limits', () => {
    for (const { name, soft, hard } of spec.rlimits) {
      const resource = system.RLIMITS[name.toLowerCase().replace(/^rlimit_/, '')];
      if (resource === undefined) throw new Error(`there is no resource limit ${name}`);
      system.setResourceLimit(resource, soft, hard);
    }
  });
  step('reset signals', () => system.resetSignals());
  if (spec.noNewPrivileges) step('forbid new privileges', () => system.setNoNewPrivileges());
}

/** Replaces the launcher by the program. If that fails after all, says so where docker does and exits as runc. */
export function execute(system: System, { path, env, crossing }: ReadyProgram, args: string[]): never {
  if (crossing) return crossInto(system, crossing, path, args, env);
  system.closeOnExecFrom(3);
  try {
    return system.execve(path, args, env);
  } catch (error) {
    return failToExecute(path, error);
  }
}

/** Says on standard error why the kernel did not take the program, and ends as runc does. */
export function failToExecute(path: string, error: unknown): never {
  writeSync(2, `exec ${path}: ${strerror(errorCode(error) ?? '')}\n`);
  process.exit(EXEC_FAILED_STATUS);
}

/**
 * Starts the program as a child, which is born into another pid namespace than the launcher's.
 *
 * @returns its number, or what execve says against the program
 * @throws LaunchFailure `no-room` where a limit of the jail leaves none for launcher and program together
 */
export function startProgram(system: System, path: string, args: string[], env: string[]): number | Error {
  system.closeOnExecFrom(3);
  try {
    return system.spawnProgram(path, args, env);
  } catch (error) {
    const code = errorCode(error) ?? '';
    if (code === 'EAGAIN' || code === 'ENOMEM')
      throw new LaunchFailure('no-room', 'start the program', code, strerror(code));
    return error as Error;
  }
}
