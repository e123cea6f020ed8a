/**
 * The kernel's security modules, and what each makes of a jail: AppArmor a profile, SELinux a label, Landlock rules. Which
 * of them a machine has is read once; what follows from it is pure.
 *
 * A profile or a label that was asked for by name is a promise: where the kernel lacks the module, the jail is refused.
 */
import { existsSync, readFileSync } from 'node:fs';
import { DrydockError } from '#common/errors';
import { landlockVersion } from '#common/native/landlock';
import { inUserNamespace } from '#common/user-namespace';
import type { LandlockRules, ProgramLabels } from '../../../launch/protocol.ts';
import type { JailReportRow, JailSpec } from '../../runtime.ts';
import { selinuxLabel } from './selinux.ts';

/** The modules of a machine. */
export interface SecurityModules {
  /** The profile of jails that name none; `''` where it is not loaded; undefined without AppArmor. */
  apparmor: string | undefined;
  /** The label that SELinux has for containers (`user:role:type:level`); undefined without SELinux. */
  selinux: string | undefined;
  /** Version; 0 for none. */
  landlock: number;
}

const APPARMOR_ENABLED = '/sys/module/apparmor/parameters/enabled';
const SELINUX_ON = '/sys/fs/selinux/enforce';
const SELINUX_CONFIG = '/etc/selinux/config';
/** What container-selinux gives containers; for where its file is not installed. */
const CONTAINER_LABEL = 'system_u:system_r:container_t:s0';
/** Landlock lets nobody mount, whatever his capabilities. */
const MAY_MOUNT = 'CAP_SYS_ADMIN';

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** The process label of SELinux's policy for containers: `process = "LABEL"` in its file (selinux_lxc_contexts_path(3)). */
function containerLabel(): string {
  const policy = /^SELINUXTYPE=(\S+)/m.exec(read(SELINUX_CONFIG))?.[1] ?? 'targeted';
  const contexts = read(`/etc/selinux/${policy}/contexts/lxc_contexts`);
  return /^\s*process\s*=\s*"([^"]+)"/m.exec(contexts)?.[1] ?? CONTAINER_LABEL;
}

/** Those of this machine; AppArmor without its default profile, which apparmor.ts loads. */
export function thisMachinesModules(): SecurityModules {
  return {
    // Profiles are the machine's: root of a user namespace can load none.
    apparmor: !inUserNamespace && read(APPARMOR_ENABLED).startsWith('Y') ? '' : undefined,
    selinux: existsSync(SELINUX_ON) ? containerLabel() : undefined,
    landlock: landlockVersion(),
  };
}

/** @throws DrydockError ERR_JAIL_PROMISE for what the kernel has no module for, ERR_BAD_PARAMETER for what is no label */
export function programLabels(spec: JailSpec, modules: SecurityModules): ProgramLabels {
  const labels: ProgramLabels = {};
  const { apparmor, selinux = [] } = spec.labels ?? {};
  if (modules.apparmor !== undefined) {
    const profile = apparmor ?? (spec.privileged ? 'unconfined' : modules.apparmor);
    if (profile !== '') labels.apparmor = profile;
  } else if (apparmor && apparmor !== 'unconfined') refuse(`apparmor=${apparmor}`, 'AppArmor');
  const parts = selinux.filter((part) => part !== 'disable');
  if (parts.length === 0) return labels;
  if (modules.selinux === undefined) return refuse(`label=${parts[0]}`, 'SELinux');
  return { ...labels, selinux: selinuxLabel(modules.selinux, parts) };
}

function refuse(option: string, module: string): never {
  throw new DrydockError(
    'ERR_JAIL_PROMISE',
    `--security-opt ${option} cannot be kept: ${module} is not there for this daemon. Leave the option out, or use a kernel that has it on.`,
  );
}

/**
 * The rules of Landlock for a jail with namespaces: all of its own root, nothing else, whatever descriptor of the host
 * may ever leak in. Undefined where it would take away what was asked for: under Landlock nobody mounts, and nobody
 * looks into a process outside of it.
 */
export function landlockOf(spec: JailSpec, { landlock }: SecurityModules): LandlockRules | undefined {
  if (landlock === 0 || whyNoLandlock(spec) !== undefined) return undefined;
  return { paths: [{ path: '/', write: true, execute: true }], nodes: true, tcp: true, outside: true };
}

function whyNoLandlock(spec: JailSpec): string | undefined {
  if (spec.labels?.landlock === 'unconfined') return 'not wanted';
  if (spec.privileged || spec.process.capabilities.includes(MAY_MOUNT)) return 'it may mount';
  if (spec.seccomp !== undefined) return 'its profile of system calls may let it mount';
  return spec.namespaces.pid === 'private' ? undefined : 'it may look into processes that are not its own';
}

/** For `docker info`: the modules that confine containers by default. */
export function moduleOptions({ apparmor, landlock }: SecurityModules): string[] {
  return [...(apparmor ? ['name=apparmor'] : []), ...(landlock > 0 ? [`name=landlock,abi=${landlock}`] : [])];
}

/** For `docker info`. */
export function moduleWarnings({ apparmor }: SecurityModules): string[] {
  return apparmor === '' ? ['WARNING: AppArmor is on, but its default profile could not be loaded'] : [];
}

function appArmorRow(profile: string | undefined, module: string | undefined): JailReportRow {
  const feature = 'AppArmor';
  if (profile !== undefined)
    return { feature, asked: profile, got: 'full', how: 'the profile is taken with execve' };
  if (module === undefined)
    return {
      feature,
      asked: 'none',
      got: 'none',
      how: 'the kernel has it not, or this daemon may not use it',
    };
  return {
    feature,
    asked: 'the default profile',
    got: 'none',
    how: 'it is not loaded, which the daemon does by apparmor_parser (Debian and Ubuntu: apt-get install apparmor)',
  };
}

/** See Runtime.report. */
export function labelRows(spec: JailSpec, modules: SecurityModules): JailReportRow[] {
  const { apparmor, selinux } = programLabels(spec, modules);
  const why = whyNoLandlock(spec);
  const rules = landlockOf(spec, modules);
  return [
    appArmorRow(apparmor, modules.apparmor),
    {
      feature: 'SELinux',
      asked: selinux ?? 'none',
      got: selinux === undefined ? 'none' : 'partial',
      how:
        selinux === undefined
          ? 'no label was asked for'
          : 'the program and the file systems made for it are labelled, files of images and volumes are not',
    },
    {
      feature: 'Landlock',
      asked: why === undefined ? 'its own root only' : 'none',
      got: rules ? 'full' : 'none',
      how: rules
        ? `version ${modules.landlock}: whatever descriptor leaks in, no file outside of its root can be opened; processes of exec are not under it, so that they can debug`
        : (why ?? 'the kernel has it not'),
      ...(rules && { bypass: 'files that are open already, and processes that exec has started' }),
    },
  ];
}
