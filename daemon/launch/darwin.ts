/**
 * The launch of a jail on Darwin: a chroot where the system allows programs there, a user of its own, limits, and a
 * seatbelt profile. The order is fixed: limits and the root need root, and what the profile denies cannot be done after
 * it. Nothing of the image runs before, so that no path of it can change while it is walked.
 */
import { copyFileSync, lstatSync, mkdirSync, rmdirSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import type { DarwinCalls } from '#common/native/darwin/calls';
import { type DarwinPlan, type Furniture, seenEnvironment, seenPath } from '../runtime/darwin/plan.ts';
import { hostPath } from '../runtime/darwin/profile.ts';
import type { ProcessSpec } from '../runtime/runtime.ts';
import { claimTree } from './claim.ts';
import { isErrno, step } from './failure.ts';
import { environment, findProgram } from './find-program.ts';
import { lookUpIdentity } from './users.ts';

/** What the daemon tells a launcher on Darwin; it answers as every launcher. */
export type ToDarwinLauncher = { type: 'seatbelt'; process: ProcessSpec; plan: DarwinPlan } | { type: 'run' };

/** Builds what the first process finds. */
export function furnishRoot(darwin: DarwinCalls, { rootPath, owner, furniture }: DarwinPlan): void {
  if (!furniture) return;
  step('furnish the root', () => putFurniture(darwin, rootPath, furniture));
  step('give the root to its user', () => claimTree(rootPath, owner));
}

function putFurniture(
  darwin: DarwinCalls,
  rootPath: string,
  { folders, files, links, devices }: Furniture,
): void {
  for (const folder of folders) makeFolder(rootPath, folder);
  for (const { source, path } of files) {
    makeFolder(rootPath, dirname(path));
    const target = hostPath(rootPath, path);
    // A link there would have the copy go elsewhere.
    rmSync(target, { force: true });
    copyFileSync(source, target);
  }
  for (const { source, path } of links) {
    makeFolder(rootPath, dirname(path));
    const target = hostPath(rootPath, path);
    // What the image has in a folder there would be hidden by a mount; a link cannot stand in its place.
    if (isFolder(target)) rmdirSync(target);
    else rmSync(target, { force: true });
    symlinkSync(source, target);
  }
  for (const { hostPath: source, path } of devices) {
    makeFolder(rootPath, dirname(path));
    const target = hostPath(rootPath, path);
    rmSync(target, { force: true });
    const { mode, rdev } = statSync(source);
    darwin.makeCharacterDevice(target, mode & 0o777, rdev);
  }
}

function isFolder(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

/** Makes a folder of the image and those above it. @throws Error where one of them is something else, such as a link. */
function makeFolder(rootPath: string, path: string): void {
  let at = rootPath;
  for (const name of path.split('/').filter(Boolean)) {
    at = `${at}/${name}`;
    try {
      if (!lstatSync(at).isDirectory())
        throw new Error(`${path} in the image is reached by what is no folder`);
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error;
      mkdirSync(at);
    }
  }
}

/**
 * All that the process becomes before it is the wanted program. @param descriptors open ones of the launcher.
 * @returns what execve wants.
 */
export function becomeSeatbelted(
  darwin: DarwinCalls,
  spec: ProcessSpec,
  plan: DarwinPlan,
  descriptors: number[],
): { path: string; args: string[]; env: string[] } {
  step('attach the standard streams', () => {
    if (spec.terminal) {
      darwin.setControllingTerminal(0);
      const { rows, columns } = spec.consoleSize ?? { rows: 0, columns: 0 };
      if (rows > 0 && columns > 0) darwin.setWindowSize(0, rows, columns);
    }
    for (const fd of descriptors) darwin.setCloseOnExec(fd, fd > 2);
  });
  step('reset signals', () => darwin.resetSignals());
  step('give way to others', () => {
    if (plan.background) darwin.becomeBackground();
    if (plan.throttleDisk) darwin.throttleDisk();
  });
  step('set resource limits', () => {
    for (const { resource, soft, hard } of plan.limits) darwin.setResourceLimit(resource, soft, hard);
  });
  if (plan.mode === 'chroot') {
    step('load the sandbox', () => darwin.loadSandboxLibrary());
    step('enter the root', () => darwin.changeRoot(plan.rootPath));
  }
  step('become the user', () => darwin.becomeUser(plan.owner));
  step('enter the working folder', () => darwin.changeFolder(seenPath(plan, spec.cwd)));
  step('confine by a seatbelt profile', () => darwin.confine(plan.profile.text, plan.profile.parameters));
  // Where the profile decides, a link in the image leads nowhere.
  const { home } = step('look up the user', () =>
    lookUpIdentity(spec.user, spec.groups, plan.mode === 'chroot' ? '' : plan.rootPath),
  );
  const env = environment(seenEnvironment(plan, spec.env), { home: seenPath(plan, home) });
  const [name = '', ...rest] = spec.args;
  const program = name.startsWith('/') ? seenPath(plan, name) : name;
  return { path: findProgram(program, env), args: [name, ...rest], env };
}
