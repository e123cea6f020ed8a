/**
 * The seam between containers and the operating system. A container's life cycle speaks only to a {@link Runtime}; how
 * isolation is made (Linux namespaces, a seatbelt profile, an OCI runtime) stays behind it.
 */
import type { Readable, Writable } from 'node:stream';
import type { UserMaps } from '#common/id-map';

/** The process to run in a jail, first or further. */
export interface ProcessSpec {
  args: string[];
  /** `NAME=value` entries, complete. */
  env: string[];
  /** Absolute path inside the root; made if missing when `makeCwd`. */
  cwd: string;
  makeCwd: boolean;
  /** `''`, `name`, `uid`, `name:group` or `uid:gid`; names are looked up in the image's /etc/passwd and /etc/group, inside the jail. */
  user: string;
  /** Supplementary groups by name or number (HostConfig.GroupAdd). */
  groups: string[];
  /** A terminal instead of three pipes. */
  terminal: boolean;
  /** Size of the terminal at the start. */
  consoleSize?: { rows: number; columns: number };
  /** Whether standard input is kept open for the client; else it is /dev/null. */
  stdin: boolean;
  /**
   * Names such as `CAP_CHOWN`. They make the bounding set, and for uid 0 also the permitted and effective sets; the
   * inheritable and ambient sets are empty, as with docker since CVE-2022-24769.
   */
  capabilities: string[];
  noNewPrivileges: boolean;
  rlimits: { name: string; soft: number; hard: number }[];
  oomScoreAdj?: number;
}

/** One mount inside the root, in order. */
export interface JailMount {
  kind: 'bind' | 'tmpfs' | 'proc' | 'sysfs' | 'mqueue' | 'devpts' | 'cgroup';
  /** Host path for `bind`; must exist. */
  source?: string;
  /** Absolute path inside the root; resolved without leaving it; made if missing. */
  target: string;
  readOnly: boolean;
  /**
   * Further mount options as mount(8) names them: `nosuid`, `noexec`, `size=64m`, `mode=1777`, `rslave`. A bind mount
   * takes the mounts below its source along unless there is `bind` (instead of `rbind`).
   */
  options: string[];
}

/** Limits of a jail; undefined or 0 is no limit. */
export interface JailLimits {
  memoryBytes?: number;
  /** Memory plus swap; -1 unlimited swap. */
  memorySwapBytes?: number;
  memoryReservationBytes?: number;
  cpuQuotaUs?: number;
  cpuPeriodUs?: number;
  cpuShares?: number;
  cpusetCpus?: string;
  cpusetMems?: string;
  pids?: number;
  blkioWeight?: number;
  blkioDevices?: JailBlkioLimit[];
  /** 0 to 100; 0 is a wish too. */
  memorySwappiness?: number;
  /** Processes that find no memory wait instead of being killed. */
  oomKillDisable?: boolean;
}

/** What a jail may do with one block device of the host. */
export interface JailBlkioLimit {
  /** The whole device on the host, `/dev/sda`. */
  hostPath: string;
  /** 10 to 1000. */
  weight?: number;
  readBytesPerSecond?: number;
  writeBytesPerSecond?: number;
  readsPerSecond?: number;
  writesPerSecond?: number;
}

/** Which limits a machine knows; a period comes with its quota. */
export type KnownLimits = Record<
  Exclude<keyof JailLimits, 'cpuPeriodUs' | 'blkioDevices' | 'memorySwappiness'>,
  boolean
>;

/** A machine that knows none. */
export const NO_LIMITS: KnownLimits = {
  memoryBytes: false,
  memorySwapBytes: false,
  memoryReservationBytes: false,
  cpuQuotaUs: false,
  cpuShares: false,
  cpusetCpus: false,
  cpusetMems: false,
  pids: false,
  blkioWeight: false,
  oomKillDisable: false,
};

/** A device node to make and to allow. */
export interface JailDevice {
  hostPath: string;
  path: string;
  /** Letters of `rwm`. */
  access: string;
}

/** Devices that a jail may use beyond its nodes (HostConfig.DeviceCgroupRules); undefined numbers mean all. */
export interface JailDeviceRule {
  /** `a`: of both kinds. */
  type: 'a' | 'b' | 'c';
  major: number | undefined;
  minor: number | undefined;
  /** Letters of `rwm`. */
  access: string;
}

/** What a rule of a seccomp profile does: names of libseccomp, as in docker's profiles. */
export type SeccompAction =
  | 'SCMP_ACT_ALLOW'
  | 'SCMP_ACT_ERRNO'
  | 'SCMP_ACT_KILL'
  | 'SCMP_ACT_KILL_PROCESS'
  | 'SCMP_ACT_KILL_THREAD'
  | 'SCMP_ACT_LOG'
  | 'SCMP_ACT_TRACE'
  | 'SCMP_ACT_TRAP';

/** A comparison with an argument of a system call, as 64 bits without sign. */
export interface SeccompArgument {
  index: number;
  op:
    | 'SCMP_CMP_NE'
    | 'SCMP_CMP_LT'
    | 'SCMP_CMP_LE'
    | 'SCMP_CMP_EQ'
    | 'SCMP_CMP_GE'
    | 'SCMP_CMP_GT'
    | 'SCMP_CMP_MASKED_EQ';
  /** With MASKED_EQ the mask. */
  value: number;
  /** With MASKED_EQ what the masked argument is compared with. */
  valueTwo?: number;
}

/** On what a rule depends. */
export interface SeccompCondition {
  caps?: string[];
  /** Go's names, such as `amd64`. */
  arches?: string[];
  minKernel?: string;
}

/** A rule: all of its arguments must match. Of several rules for one system call the first that matches counts. */
export interface SeccompRule {
  names: string[];
  action: SeccompAction;
  errnoRet?: number;
  args?: SeccompArgument[] | null;
  includes?: SeccompCondition;
  excludes?: SeccompCondition;
}

/** Which system calls a jail may make, in docker's form. */
export interface SeccompProfile {
  defaultAction: SeccompAction;
  defaultErrnoRet?: number;
  architectures?: string[];
  archMap?: { architecture: string; subArchitectures: string[] | null }[] | null;
  syscalls?: SeccompRule[];
}

/** What was asked of the kernel's security modules; what is undefined is the runtime's usual. */
export interface JailLabels {
  /** An AppArmor profile, or `unconfined`. */
  apparmor?: string;
  /** Parts of a SELinux label, such as `type:spc_t`; or `disable`. */
  selinux?: string[];
  landlock?: 'unconfined';
}

/** A namespace of its own, the host's, or that of another process. */
export type NamespaceMode = 'private' | 'host' | { pid: number };

/** A port that a container listens on, as EXPOSE and `-p` name it. */
export interface JailPort {
  port: number;
  protocol: 'tcp' | 'udp';
}

/** All that confines a container: made from its configuration by pure functions, compiled by each runtime. */
export interface JailSpec {
  /** 64 hex digits. */
  id: string;
  /** Name of the runtime; the default one when undefined. */
  runtime?: string;
  /** The mounted root file system, on the host. */
  rootPath: string;
  /** The maps of a user namespace of its own; without, its users are those of the machine. */
  userMaps?: UserMaps;
  readOnlyRoot: boolean;
  hostname: string;
  domainname: string;
  namespaces: {
    network: NamespaceMode;
    pid: NamespaceMode;
    ipc: NamespaceMode;
    uts: NamespaceMode;
    cgroup: NamespaceMode;
  };
  /** What a network of its own is for; `namespaces.network` says whether it has one. */
  network: {
    /** False with `--network none`: it reaches nothing but itself. */
    attached: boolean;
    /** What it is expected to listen on, for platforms where that is a permission. */
    ports: JailPort[];
  };
  mounts: JailMount[];
  devices: JailDevice[];
  deviceRules?: JailDeviceRule[];
  /** All devices, all capabilities, no masks (HostConfig.Privileged). */
  privileged: boolean;
  maskedPaths: string[];
  readonlyPaths: string[];
  sysctls: Record<string, string>;
  /** System calls; docker's default profile when undefined. Privileged jails are unconfined. */
  seccomp?: SeccompProfile | 'unconfined';
  labels?: JailLabels;
  limits: JailLimits;
  /** The control group below which the jail's is made (HostConfig.CgroupParent); the daemon's own when undefined. */
  cgroupParent?: string;
  /** What an OCI runtime is told besides (HostConfig.Annotations); our own has no use for any. */
  annotations?: Record<string, string>;
  /** Run a reaping init as process 1 (HostConfig.Init). */
  init: boolean;
  process: ProcessSpec;
}

/** How a process ended: `code` is what a shell would see, 128+n for a signal. */
export interface ExitStatus {
  code: number;
  signal: string | undefined;
  oomKilled: boolean;
}

/** Names a process for good: its number, and when it was started as /proc/PID/stat has it. */
export interface ProcessMark {
  pid: number;
  startTime: string;
}

/** By what a later daemon takes a process up again that outlives the one that started it. */
export interface Survival {
  main: ProcessMark;
  /** Keeps its output, and how it ends. */
  warden: ProcessMark;
  /** Keeps its terminal, or its input. */
  holder?: ProcessMark;
}

/** A process in a jail, with the daemon's ends of its standard streams. */
export interface JailProcess {
  /** Process id on the host. */
  readonly pid: number;
  /** Undefined unless `stdin`. With a terminal, the terminal's input. */
  readonly stdin: Writable | undefined;
  /** With a terminal, the terminal's output, and stderr is undefined. Paused until read. */
  readonly stdout: Readable;
  readonly stderr: Readable | undefined;
  /** Tells the end of the process; its streams end by themselves when everything in them was read. */
  readonly exited: Promise<ExitStatus>;
  resize(rows: number, columns: number): void;
  /** @param signal name such as `SIGTERM`, or number. */
  kill(signal: string | number): void;
  /** There where it can outlive the daemon. */
  readonly survival?: Survival;
}

/** A container's world. Made in two steps, so that its network can be attached before anything of the image runs. */
export interface Jail {
  readonly id: string;
  /** A process in the jail's namespaces (the waiting launcher, then the container's process 1). */
  readonly pid: number;
  /** When that process was started, as /proc/PID/stat has it: with `pid` it names the process for sweep(). */
  readonly startTime: string;
  /**
   * Runs the container's process.
   * @throws DrydockError ERR_EXEC_NOT_FOUND (exit code 127), ERR_EXEC_PERMISSION (126), ERR_JAIL with the failed step.
   */
  start(): Promise<JailProcess>;
  /** Runs a further process in the jail. The same errors as start(). */
  exec(process: ProcessSpec): Promise<JailProcess>;
  pause(): Promise<void>;
  resume(): Promise<void>;
  update(limits: JailLimits): Promise<void>;
  /** Host pids of all processes in the jail. */
  pids(): Promise<number[]>;
  stats(): Promise<JailStats>;
  /** Kills what still runs and frees namespaces, cgroups and mounts of the jail. Idempotent. */
  destroy(): Promise<void>;
  /** Frees what this daemon has of a jail whose first process has a {@link Survival}: it goes on, and nobody hears of it. */
  leave?(): void;
}

/** What `docker stats` shows, in the units of the Engine API. */
export interface JailStats {
  cpuTotalNs: number;
  cpuUserNs: number;
  cpuSystemNs: number;
  throttledPeriods: number;
  throttledNs: number;
  periods: number;
  memoryBytes: number;
  memoryMaxBytes: number;
  memoryLimitBytes: number;
  memoryStat: Record<string, number>;
  pids: number;
  pidsLimit: number;
  blkioReadBytes: number;
  blkioWriteBytes: number;
}

/** How well one wish of a JailSpec is met, for `docker info`, the warnings of create and `drydock doctor`. */
export interface JailReportRow {
  feature: string;
  asked: string;
  got: 'full' | 'partial' | 'none';
  how: string;
  /** How what is missing could be got round; absent where nothing is known. */
  bypass?: string;
}

/** A jail that an earlier daemon has started. */
export interface KnownJail {
  id: string;
  pid: number;
  startTime: string;
  cgroupParent?: string;
  survival?: Survival;
}

/** A way to isolate. */
export interface Runtime {
  readonly name: string;
  /** Prepares what every jail needs (cgroup roots, a spare launcher). @throws DrydockError with the remedy when it can't work here. */
  open(): Promise<void>;
  create(spec: JailSpec): Promise<Jail>;
  /**
   * What this runtime would give for this spec, one row for each wish; what is not full becomes a warning.
   * @throws DrydockError ERR_JAIL_PROMISE, as create() does, where a promise of security can't be kept.
   */
  report(spec: JailSpec): JailReportRow[];
  /** Facts for `docker info`: cgroup version and driver, security options, kernel features. */
  info(): {
    cgroupVersion: '1' | '2';
    cgroupDriver: string;
    securityOptions: string[];
    warnings: string[];
    /** By name. */
    runtimes: Record<string, { path: string; runtimeArgs?: string[] }>;
    defaultRuntime: string;
    /** Which limits containers can have on this machine. */
    limits: KnownLimits;
  };
  /**
   * Takes up a jail that goes on without a daemon, or has ended meanwhile: then its process's end is told at once.
   * @returns undefined when it is no more, or was never meant to survive
   */
  restore?(spec: JailSpec, known: KnownJail): Promise<{ jail: Jail; process: JailProcess } | undefined>;
  /**
   * Removes what a killed daemon left (processes, cgroups) of containers that `known` names, and of any other of ours.
   * @param going containers that go on, whichever their runtime
   * @returns what was done, for the log
   */
  sweep(known: KnownJail[], going: ReadonlySet<string>): Promise<string[]>;
  /** Stops the spare launcher and frees what open() made. */
  close(): Promise<void>;
}
