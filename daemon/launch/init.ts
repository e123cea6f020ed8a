/**
 * Process 1 of a container with `--init`. All that an init must do here is to exist and to leave no zombies: the
 * container's program is started beside it by the daemon, which also passes signals on and ends the container when
 * the program ends. Zombies are the kernel's business when SIGCHLD is ignored, and that survives execve. What is left
 * is a program that waits for ever.
 */
import { outsideId, type UserMaps } from '#common/id-map';
import { type Instruction, type Machine, machineProgram, thisMachine } from '#common/native/machine-code';
import { crossAndWait } from './crossing.ts';
import type { System } from './system.ts';

/** The program: it waits for ever. */
export function initProgram(machine: Machine): Uint8Array {
  return machineProgram(machine, [WAIT], true);
}

const ARGUMENTS = ['/sbin/docker-init'];

/** For ever, but for signals: ppoll(2) on nothing. */
const WAIT: Instruction = { call: 'ppoll', operands: [0, 0, 0, 0, 0] };

/** Becomes process 1, without any power. @param userFd the user namespace to be in, with its maps */
export function becomeInit(system: System, userFd: number | undefined, maps: UserMaps | undefined): never {
  if (userFd !== undefined) {
    system.resetSignals();
    system.ignoreChildren();
    system.setNoNewPrivileges();
    system.detachCapabilitiesFromIds(true);
    system.setIdentity(outsideId(maps?.uids, 0) ?? 0, outsideId(maps?.gids, 0) ?? 0, []);
    const crossing = { userFd, bounding: new Set<number>(), capabilities: 0n, filter: undefined };
    return crossAndWait(system, crossing, WAIT, ARGUMENTS);
  }
  const memory = system.memoryFile('drydock-init');
  system.fillMemory(memory, initProgram(thisMachine()));
  system.sealMemory(memory);
  system.resetSignals();
  system.ignoreChildren();
  system.setNoNewPrivileges();
  system.limitBoundingSet(new Set());
  system.setCapabilities(0n);
  system.closeOnExecFrom(3);
  return system.execveFd(memory, ARGUMENTS, []);
}
