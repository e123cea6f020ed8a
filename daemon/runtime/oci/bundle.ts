/**
 * From a jail's specification to the config.json of an OCI runtime (opencontainers/runtime-spec). Pure, but for the
 * numbers of host devices.
 */
import { constants, statSync } from 'node:fs';
import type { ProgramLabels } from '../../launch/protocol.ts';
import type { Identity } from '../../launch/users.ts';
import { DEVICE_RULES_ALWAYS } from '../linux/cgroup.ts';
import { splitDevice } from '../linux/device-number.ts';
import { deviceRules } from '../linux/devices.ts';
import { applicableRules, type CompileContext } from '../linux/seccomp/compile.ts';
import { mountLabel } from '../linux/security/selinux.ts';
import type {
  JailBlkioLimit,
  JailDevice,
  JailLimits,
  JailMount,
  JailSpec,
  NamespaceMode,
  ProcessSpec,
  SeccompProfile,
} from '../runtime.ts';

/** What the specification alone does not say. */
export interface BundleContext {
  identity: Identity;
  labels: ProgramLabels;
  /** Where the network namespace is, when the jail has its own. */
  networkPath: string;
  /** Undefined for an ordinary user, who has no control groups: then the runtime must not try to limit anything. */
  cgroupsPath: string | undefined;
  seccomp: { profile: SeccompProfile; context: CompileContext } | undefined;
}

/** The whole config.json. */
export function ociConfig(spec: JailSpec, context: BundleContext): object {
  return {
    ociVersion: '1.0.2',
    process: ociProcess(spec.process, context.identity, context.labels),
    root: { path: spec.rootPath, readonly: spec.readOnlyRoot },
    hostname: spec.namespaces.uts === 'private' ? spec.hostname : undefined,
    mounts: spec.mounts.map(ociMount),
    annotations: spec.annotations,
    linux: {
      namespaces: ociNamespaces(spec, context.networkPath),
      devices: spec.devices.map(ociDevice),
      cgroupsPath: context.cgroupsPath,
      resources: context.cgroupsPath && { ...ociResources(spec.limits), devices: ociDeviceRules(spec) },
      mountLabel: context.labels.selinux && mountLabel(context.labels.selinux),
      maskedPaths: spec.maskedPaths,
      readonlyPaths: spec.readonlyPaths,
      sysctl: spec.sysctls,
      seccomp: context.seccomp && ociSeccomp(context.seccomp.profile, context.seccomp.context),
    },
  };
}

/** The `process` object, which `exec` takes on its own. */
export function ociProcess(
  process: ProcessSpec,
  { uid, gid, groups }: Identity,
  labels: ProgramLabels,
): object {
  const capabilities = process.capabilities;
  const own = uid === 0 ? capabilities : [];
  return {
    terminal: process.terminal,
    consoleSize:
      process.terminal && process.consoleSize
        ? { height: process.consoleSize.rows, width: process.consoleSize.columns }
        : undefined,
    user: { uid, gid, additionalGids: groups, umask: 0o022 },
    args: process.args,
    env: process.env,
    cwd: process.cwd,
    capabilities: { bounding: capabilities, effective: own, permitted: own, inheritable: [], ambient: [] },
    noNewPrivileges: process.noNewPrivileges,
    apparmorProfile: labels.apparmor,
    selinuxLabel: labels.selinux,
    rlimits: process.rlimits.map(({ name, soft, hard }) => ({
      type: `RLIMIT_${name.toUpperCase().replace(/^RLIMIT_/, '')}`,
      soft: BigInt.asUintN(64, BigInt(soft)),
      hard: BigInt.asUintN(64, BigInt(hard)),
    })),
    oomScoreAdj: process.oomScoreAdj,
  };
}

function ociMount({ kind, source, target, readOnly, options }: JailMount): object {
  const all = [...options, readOnly ? 'ro' : 'rw'];
  if (kind === 'bind' && !all.includes('bind')) all.push('rbind');
  return { destination: target, type: kind, source: source ?? kind, options: all };
}

function ociNamespaces(spec: JailSpec, networkPath: string): object[] {
  const { network, pid, ipc, uts, cgroup } = spec.namespaces;
  const list: { type: string; path?: string }[] = [{ type: 'mount' }];
  const add = (type: string, file: string, mode: NamespaceMode): void => {
    if (mode === 'private') list.push({ type });
    else if (mode !== 'host') list.push({ type, path: `/proc/${mode.pid}/ns/${file}` });
  };
  if (network === 'private') list.push({ type: 'network', path: networkPath });
  else add('network', 'net', network);
  add('pid', 'pid', pid);
  add('ipc', 'ipc', ipc);
  add('uts', 'uts', uts);
  add('cgroup', 'cgroup', cgroup);
  return list;
}

function ociDevice({ hostPath, path }: JailDevice): object {
  const stat = statSync(hostPath);
  const block = (stat.mode & constants.S_IFMT) === constants.S_IFBLK;
  return {
    path,
    type: block ? 'b' : 'c',
    ...splitDevice(stat.rdev),
    fileMode: stat.mode & 0o777,
    uid: stat.uid,
    gid: stat.gid,
  };
}

function ociDeviceRules(spec: JailSpec): object[] {
  if (spec.privileged) return [{ allow: true, access: 'rwm' }];
  const rules = [...DEVICE_RULES_ALWAYS, ...deviceRules(spec.devices, spec.deviceRules)];
  return [
    { allow: false, access: 'rwm' },
    ...rules.map(({ type, major, minor, access }) => ({ allow: true, type, major, minor, access })),
  ];
}

function ociResources(limits: JailLimits): object {
  const { memoryBytes, memorySwapBytes } = limits;
  const given = <T>(value: T | 0 | undefined): T | undefined => value || undefined;
  return {
    memory: {
      limit: given(memoryBytes),
      swap: memorySwapBytes || (memoryBytes ? memoryBytes * 2 : undefined),
      reservation: given(limits.memoryReservationBytes),
      swappiness: limits.memorySwappiness,
      disableOOMKiller: limits.oomKillDisable,
    },
    cpu: {
      shares: given(limits.cpuShares),
      quota: given(limits.cpuQuotaUs),
      period: given(limits.cpuPeriodUs),
      cpus: given(limits.cpusetCpus),
      mems: given(limits.cpusetMems),
    },
    pids: limits.pids ? { limit: limits.pids } : undefined,
    blockIO: ociBlockIo(limits),
  };
}

function ociBlockIo({ blkioWeight, blkioDevices = [] }: JailLimits): object | undefined {
  if (!blkioWeight && blkioDevices.length === 0) return undefined;
  const rates = (name: Exclude<keyof JailBlkioLimit, 'hostPath'>): object[] =>
    blkioDevices
      .filter((device) => device[name])
      .map((device) => ({
        ...splitDevice(statSync(device.hostPath).rdev),
        [name === 'weight' ? 'weight' : 'rate']: device[name],
      }));
  return {
    weight: blkioWeight || undefined,
    weightDevice: rates('weight'),
    throttleReadBpsDevice: rates('readBytesPerSecond'),
    throttleWriteBpsDevice: rates('writeBytesPerSecond'),
    throttleReadIOPSDevice: rates('readsPerSecond'),
    throttleWriteIOPSDevice: rates('writesPerSecond'),
  };
}

function ociSeccomp(profile: SeccompProfile, context: CompileContext): object {
  const subArchitectures = profile.archMap?.find(({ architecture }) =>
    architecture.toLowerCase().endsWith(context.machine),
  );
  return {
    defaultAction: profile.defaultAction,
    defaultErrnoRet: profile.defaultErrnoRet,
    architectures: subArchitectures
      ? [subArchitectures.architecture, ...(subArchitectures.subArchitectures ?? [])]
      : profile.architectures,
    syscalls: applicableRules(profile, context).map(({ names, action, errnoRet, args }) => ({
      names,
      action,
      errnoRet,
      args: args ?? undefined,
    })),
  };
}

/** JSON with 64-bit integers, which JavaScript's own numbers cannot hold. */
export function stringify(value: object): string {
  const text = JSON.stringify(value, (_key, item) =>
    typeof item === 'bigint' ? `\u0000${item}\u0000` : item,
  );
  return text.replace(/"\\u0000(\d+)\\u0000"/g, '$1');
}
