/** From a specification to what the launcher of a jail without namespaces does on Linux. Pure. */
import type { Confinement, LandlockRules } from '../../launch/protocol.ts';
import { profileOf } from '../linux/seccomp/filter.ts';
import type { JailReportRow, JailSpec, SeccompProfile, SeccompRule } from '../runtime.ts';
import { type JailPolicy, jailPolicy } from '../spec/policy.ts';
import { commonRows, networkRow, plainProcess } from './promises.ts';

/** File systems that would show or change the host. */
const LEFT_OUT: ReadonlySet<string> = new Set(['sysfs', 'cgroup', 'mqueue']);
const EPERM = 1;
const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_TYPE_MASK = 0xf;
/** SOCK_DGRAM, SOCK_RAW, SOCK_RDM, SOCK_SEQPACKET, SOCK_DCCP, SOCK_PACKET. */
const NOT_STREAMS = [2, 3, 4, 5, 6, 10];
const IPPROTO_TCP = 6;
const MSG_FASTOPEN = 0x2000_0000;
/** Where `flags` are among the arguments. */
const SENDING_CALLS: readonly [name: string, flagsAt: number][] = [
  ['sendto', 3],
  ['sendmsg', 2],
  ['sendmmsg', 3],
];

/** System calls for IPC objects, which without a namespace are the host's. */
const IPC_CALLS = [
  ...['shmget', 'shmat', 'shmctl', 'shmdt'],
  ...['semget', 'semop', 'semtimedop', 'semctl'],
  ...['msgget', 'msgsnd', 'msgrcv', 'msgctl', 'mq_open', 'mq_unlink'],
];

/** The specification with what a jail without namespaces has of it. */
export function plainSpec(spec: JailSpec): JailSpec {
  const mounts = spec.mounts
    .filter(({ kind }) => !LEFT_OUT.has(kind))
    .map((mount) =>
      // Only processes of the same user, and nothing of the kernel (Linux 5.8).
      mount.kind === 'proc'
        ? { ...mount, options: [...mount.options, 'hidepid=invisible', 'subset=pid'] }
        : mount,
    );
  return {
    ...spec,
    mounts,
    process: plainProcess(spec, spec.process),
    seccomp: plainSeccomp(spec, jailPolicy(spec)),
  };
}

/** The profile that was asked for, behind what only a filter can deny here. */
function plainSeccomp(spec: JailSpec, policy: JailPolicy): SeccompProfile | 'unconfined' {
  const deny = (names: string[], args?: SeccompRule['args']): SeccompRule => ({
    names,
    action: 'SCMP_ACT_ERRNO',
    errnoRet: EPERM,
    ...(args && { args }),
  });
  const rules: SeccompRule[] = [];
  if (policy.ipc === 'private') rules.push(deny(IPC_CALLS));
  if (policy.network === 'none') {
    rules.push(deny(['socket'], [{ index: 0, op: 'SCMP_CMP_NE', value: AF_UNIX }]));
    // Its requests are system calls that no filter sees.
    rules.push(deny(['io_uring_setup']));
  }
  if (policy.network === 'attached') rules.push(...tcpAlone(deny));
  const profile = profileOf(spec);
  if (!profile && rules.length === 0) return 'unconfined';
  const base: SeccompProfile = profile ?? { defaultAction: 'SCMP_ACT_ALLOW' };
  return { ...base, syscalls: [...rules, ...(base.syscalls ?? [])] };
}

/** Local sockets and TCP, which is all that Landlock keeps to its ports. */
function tcpAlone(deny: (names: string[], args?: SeccompRule['args']) => SeccompRule): SeccompRule[] {
  const not = (index: number, value: number) => ({ index, op: 'SCMP_CMP_NE' as const, value });
  const notLocal = not(0, AF_UNIX);
  const masked = (index: number, value: number, valueTwo: number) => ({
    ...{ index, op: 'SCMP_CMP_MASKED_EQ' as const, value, valueTwo },
  });
  return [
    deny(['socket'], [notLocal, not(0, AF_INET), not(0, AF_INET6)]),
    ...NOT_STREAMS.map((type) => deny(['socket'], [notLocal, masked(1, SOCK_TYPE_MASK, type)])),
    // Other protocols have streams too: MPTCP and SCTP.
    deny(['socket'], [notLocal, not(2, 0), not(2, IPPROTO_TCP)]),
    // A connection that begins with data passes by the hook for connections.
    ...SENDING_CALLS.map(([name, at]) => deny([name], [masked(at, MSG_FASTOPEN, MSG_FASTOPEN)])),
    // Its requests are system calls that no filter sees.
    deny(['io_uring_setup']),
  ];
}

/** What Landlock grants: never less than the policy. What is narrower below a wider path, the mounts keep. */
export function landlockRules(policy: JailPolicy, proxyPort?: number): LandlockRules {
  const ports = policy.ports.filter(({ protocol }) => protocol === 'tcp').map(({ port }) => port);
  return {
    paths: policy.files
      .filter(({ access }) => access !== 'none')
      .map(({ path, access, execute }) => ({ path, write: access === 'write', execute })),
    nodes: false,
    tcp:
      proxyPort === undefined ? policy.network !== 'none' : { connect: [proxyPort, ...ports], bind: ports },
    outside: policy.network === 'host' && policy.signals === 'host',
  };
}

/** All that a launcher needs to know beside the process. */
export function confinement(
  spec: JailSpec,
  owner: number,
  first: boolean,
  proxyPort: number | undefined,
): Confinement {
  return { spec, first, owner, landlock: landlockRules(jailPolicy(spec), proxyPort) };
}

function linuxNetworkRow(policy: JailPolicy, scoped: boolean): JailReportRow {
  const filter = 'a filter that knows no sockets but AF_UNIX';
  const row = networkRow(policy, {
    none: scoped ? `${filter}, and Landlock for abstract ones` : filter,
    confined: 'Landlock',
  });
  if (policy.network !== 'none' || scoped) return row;
  return { ...row, got: 'partial', bypass: 'abstract unix sockets of the host can be reached' };
}

/** See Runtime.report. @param landlock the kernel's version, 0 for none. */
export function plainReport(spec: JailSpec, owner: number, landlock: number): JailReportRow[] {
  const policy = jailPolicy(spec);
  const scoped = landlock >= 6;
  return [
    {
      feature: 'root file system',
      asked: spec.readOnlyRoot ? 'read-only' : 'writable',
      got: landlock > 0 ? 'full' : 'partial',
      how: `chroot as an ordinary user, mounts of the host below it${landlock > 0 ? ', Landlock' : '; the kernel has no Landlock'}`,
      ...(landlock === 0 && { bypass: 'a descriptor of a folder outside, if one ever leaked in' }),
    },
    linuxNetworkRow(policy, scoped),
    {
      feature: 'ipc namespace',
      asked: policy.ipc,
      got: policy.ipc === 'private' ? 'partial' : 'full',
      how:
        policy.ipc === 'private'
          ? 'System V IPC and POSIX message queues are denied; /dev/shm is its own'
          : 'the host’s, as asked',
    },
    {
      feature: '/proc and /sys',
      asked: 'private',
      got: 'partial',
      how: '/proc shows the processes of the jail and nothing of the kernel (no meminfo, no sys); there is no /sys',
    },
    ...commonRows(spec, policy, owner),
  ];
}
