/**
 * What a jail without namespaces can promise: the same for `plain` on Linux and for Darwin, which has none. Pure.
 *
 * A promise of security that can't be kept is an error, so that nobody believes to be confined who is not; a wish for
 * resources is a row of the report that says partial or none.
 */
import { createHash } from 'node:crypto';
import { DrydockError } from '#common/errors';
import { DEFAULT_CAPABILITIES, DEFAULT_NETWORK_SYSCTLS } from '../defaults.ts';
import type { JailReportRow, JailSpec, ProcessSpec } from '../runtime.ts';
import type { JailPolicy } from '../spec/policy.ts';

/** Users of jails: above everything that systems give away, below what a signed 32-bit number holds. */
const OWNER_FIRST = 0x7000_0000;
const OWNER_COUNT = 0x0fff_0000;

/** The user and group that a jail's processes and files belong to: always the same for one container. */
export function jailOwner(id: string): number {
  const digest = createHash('sha256').update(`drydock ${id}`).digest();
  return OWNER_FIRST + (digest.readUInt32BE(0) % OWNER_COUNT);
}

/** What there is for jails that are to have a network of their own. */
export type NetworkMeans = 'proxied' | 'none';

/** @throws DrydockError ERR_JAIL_PROMISE naming the first promise that can't be kept, and what to do instead. */
export function checkPromises(spec: JailSpec, policy: JailPolicy, network: NetworkMeans): void {
  for (const [broken, what] of brokenPromises(spec, policy, network))
    if (broken) throw new DrydockError('ERR_JAIL_PROMISE', `A jail without namespaces ${what}.`);
}

function brokenPromises(spec: JailSpec, policy: JailPolicy, network: NetworkMeans): [boolean, string][] {
  const { process, namespaces, sysctls } = spec;
  const extra = process.capabilities.filter((name) => !DEFAULT_CAPABILITIES.includes(name));
  const settings = Object.entries(sysctls).filter(([name, value]) => DEFAULT_NETWORK_SYSCTLS[name] !== value);
  const joined = Object.entries(namespaces).filter(([, mode]) => typeof mode === 'object');
  const { apparmor, selinux = [] } = spec.labels ?? {};
  return [
    [
      (apparmor ?? 'unconfined') !== 'unconfined' || selinux.some((part) => part !== 'disable'),
      'has no AppArmor profile and no SELinux label: leave --security-opt apparmor and label out',
    ],
    [spec.privileged, 'cannot be privileged: its root is an ordinary user of the host'],
    [
      extra.length > 0,
      `cannot have capabilities (${extra.join(', ')}): its root is an ordinary user of the host; leave --cap-add out`,
    ],
    [
      policy.network === 'attached' && network === 'none',
      'has no network of its own: give it --network none, or --network host to let it use the host’s',
    ],
    [
      joined.length > 0,
      `cannot share the ${joined.map(([kind]) => kind).join(', ')} namespace of another container: there are none`,
    ],
    [
      settings.length > 0,
      `cannot set sysctls (${settings.map(([name]) => name).join(', ')}): they would be the host’s`,
    ],
  ];
}

/** How a jail reaches networks. */
export function networkRow(policy: JailPolicy, how: { none: string; confined: string }): JailReportRow {
  if (policy.network === 'none') return row('network', 'none', 'full', how.none);
  if (policy.network !== 'attached') return row('network', policy.network, 'full', 'the host’s, as asked');
  return row(
    'network',
    'attached',
    'partial',
    `by a proxy of its own (HTTP and SOCKS 5, in the usual variables), which is all that ${how.confined} lets it connect to beside its own ports; it listens on the host’s ports; no UDP, no ICMP`,
    'its ports are open to whoever reaches the host, and what else listens on one of them to the container',
  );
}

/** A process without capabilities, under the jail's limit of processes. */
export function plainProcess(spec: JailSpec, process: ProcessSpec): ProcessSpec {
  const { pids } = spec.limits;
  const limit = pids ? [{ name: 'nproc', soft: pids, hard: pids }] : [];
  return {
    ...process,
    capabilities: [],
    noNewPrivileges: true,
    rlimits: [...process.rlimits.filter(({ name }) => !pids || name !== 'nproc'), ...limit],
  };
}

/** Rows that hold on every platform. */
export function commonRows(spec: JailSpec, policy: JailPolicy, owner: number): JailReportRow[] {
  const { namespaces, hostname, process } = spec;
  return [
    {
      feature: 'user namespace',
      asked: 'none',
      got: 'partial',
      how: `every user of the image is user ${owner} of the host, and all files of the image are that user’s`,
    },
    {
      feature: 'pid namespace',
      asked: namespaces.pid === 'host' ? 'host' : 'private',
      got: 'partial',
      how: 'process numbers are the host’s and nothing is process 1; a user of its own keeps it from signalling and inspecting others',
    },
    {
      feature: 'host name',
      asked: namespaces.uts === 'private' && hostname !== '' ? hostname : 'none',
      got: 'none',
      how: 'programs see the host’s name; $HOSTNAME holds the container’s',
    },
    {
      feature: 'capabilities',
      asked: process.capabilities.length > 0 ? 'docker’s default' : 'none',
      got: 'partial',
      how: 'none at all: what an image does as root works only on its own files',
    },
    {
      feature: 'new privileges',
      asked: process.noNewPrivileges ? 'forbidden' : 'none',
      got: 'full',
      how: 'forbidden always: setuid programs stay what they are',
    },
    ...(process.groups.length > 0
      ? [row('supplementary groups', process.groups.join(','), 'none', 'a jail has one group')]
      : []),
    ...(spec.init
      ? [row('init', 'reaping process 1', 'none', 'the host’s process 1 reaps what is left over')]
      : []),
    ...limitRows(policy),
  ];
}

function row(
  feature: string,
  asked: string,
  got: JailReportRow['got'],
  how: string,
  bypass?: string,
): JailReportRow {
  return { feature, asked, got, how, ...(bypass !== undefined && { bypass }) };
}

function limitRows({ limits }: JailPolicy): JailReportRow[] {
  const rows: JailReportRow[] = [];
  const { pids, memoryBytes, cpuShares, cpuQuotaUs, blkioWeight } = limits;
  if (pids) rows.push(row('processes', String(pids), 'full', 'RLIMIT_NPROC of a user that nobody else has'));
  if (memoryBytes)
    rows.push(
      row(
        'memory',
        String(memoryBytes),
        'partial',
        'the sum of all its processes is looked at several times a second, and all are killed when it is too much',
        'memory that is taken and used between two looks',
      ),
    );
  const none = (name: string, value: number | string | undefined): void => {
    if (value) rows.push(row(name, String(value), 'none', 'there is no limit of this kind for a user'));
  };
  if (limits.memorySwapBytes && limits.memorySwapBytes !== (memoryBytes ?? 0) * 2)
    none('swap', limits.memorySwapBytes);
  none('memory reservation', limits.memoryReservationBytes);
  none('CPU quota', cpuQuotaUs);
  none('CPU shares', cpuShares);
  none('block IO of devices', limits.blkioDevices?.length);
  none('memory swappiness', limits.memorySwappiness);
  none('OOM kill disable', limits.oomKillDisable ? 1 : 0);
  none('CPU set', limits.cpusetCpus);
  none('memory nodes', limits.cpusetMems);
  none('block IO weight', blkioWeight);
  return rows;
}
