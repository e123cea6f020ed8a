/**
 * The launch of a jail without namespaces: chroot, a user of its own, limits, Landlock and a seccomp filter. It shares
 * streams, program look-up and execve with the other kind (program.ts).
 *
 * The rules of Landlock are made as root, inside the root, and raised after the identity is taken: what they grant is
 * then fixed by descriptors and not by what a path means later.
 */
import { closeSync, fstatSync, openSync } from 'node:fs';
import type { PseudoTerminal } from '#common/native/tty';
import type { ProcessSpec } from '../runtime/runtime.ts';
import { isErrno, step } from './failure.ts';
import type { Confinement, LandlockRules } from './protocol.ts';
import { enterPlainRoot, openOwnTerminal } from './root.ts';
import type { System } from './system.ts';

/** Enters the jail's root, which the first process also builds. Returns the terminal, if one is wanted. */
export function enterConfinement(
  system: System,
  spec: ProcessSpec,
  { spec: jail, first, owner }: Confinement,
): PseudoTerminal | undefined {
  step('make a session keyring', () => system.newSessionKeyring(`_ses.${jail.id}`));
  if (first) {
    step('give the root to its user', () => system.claimTree(jail.rootPath, owner));
    return enterPlainRoot(system, jail);
  }
  step('enter the root', () => {
    system.changeRoot(jail.rootPath);
    system.changeFolder('/');
  });
  return spec.terminal ? openOwnTerminal(system) : undefined;
}

/** Rules that are made but not in force. */
export interface Walls {
  /** Without new privileges being forbidden it wants CAP_SYS_ADMIN. */
  raise(): void;
}

/** Prepares Landlock's rules inside the root. Where the kernel has none, there is nothing to raise. */
export function buildWalls(system: System, landlock: LandlockRules): Walls {
  const abi = system.landlockVersion();
  if (abi === 0) return { raise() {} };
  const ruleset = step('make rules for files', () => {
    const made = system.createRuleset(abi, { tcp: landlock.tcp !== true, outside: !landlock.outside });
    const { nodes } = landlock;
    for (const { path, write, execute } of landlock.paths) {
      const fd = openIfThere(system, path);
      if (fd === undefined) continue;
      system.allowPath(made, abi, fd, { write, execute, nodes, directory: fstatSync(fd).isDirectory() });
      closeSync(fd);
    }
    if (typeof landlock.tcp === 'object') {
      for (const port of landlock.tcp.connect) system.allowPort(made, abi, 'connect', port);
      for (const port of landlock.tcp.bind) system.allowPort(made, abi, 'bind', port);
    }
    return made;
  });
  return {
    raise: () =>
      step('confine by rules for files', () => {
        system.restrictSelf(ruleset);
        closeSync(ruleset);
      }),
  };
}

function openIfThere(system: System, path: string): number | undefined {
  try {
    return openSync(path, system.O_PATH);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined;
    throw error;
  }
}
