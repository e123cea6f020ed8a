/** What containers need of a Linux kernel, and how much of it this one gives. */
import type { Finding, HostView } from './host.ts';

const PART = 'kernel';

/** Needed for the private copy of a bind mount's source: open_tree(2) with OPEN_TREE_CLONE and mount_setattr(2). */
const KERNEL_WANTED: readonly [number, number] = [5, 12];
/** Fewer open files than this are soon used up: each connection of a container takes one or two. */
const OPEN_FILES_WANTED = 65_536;

/** All checks of the kernel. */
export function linuxFindings(host: HostView): Finding[] {
  return [
    kernel(host),
    namespaces(host),
    cgroups(host),
    ...devices(host),
    overlay(host),
    seccomp(host),
    openFiles(host),
  ];
}

function kernel(host: HostView): Finding {
  const release = host.read('/proc/sys/kernel/osrelease')?.trim() ?? 'unknown';
  const [major = 0, minor = 0] = release.split('.').map(Number.parseFloat);
  const [wantedMajor, wantedMinor] = KERNEL_WANTED;
  if (major > wantedMajor || (major === wantedMajor && minor >= wantedMinor))
    return { part: PART, name: 'version', status: 'ok', text: `Linux ${release}` };
  return {
    part: PART,
    name: 'version',
    status: 'warn',
    text: `Linux ${release} is older than ${KERNEL_WANTED.join('.')}: a bind mount of a folder that holds the daemon's own state is refused`,
    fix: 'Use a newer kernel, or bind other folders only.',
  };
}

function namespaces(host: HostView): Finding {
  const there = new Set(host.list('/proc/self/ns'));
  const missing = ['mnt', 'pid', 'net', 'ipc', 'uts'].filter((name) => !there.has(name));
  if (missing.length > 0)
    return {
      part: PART,
      name: 'namespaces',
      status: 'fail',
      text: `this kernel has no ${missing.join(', ')} namespaces, so processes cannot be kept apart`,
      fix: 'Use a kernel with CONFIG_NAMESPACES; every distribution has it.',
    };
  const optional = ['user', 'cgroup'].filter((name) => !there.has(name));
  const without = optional.length > 0 ? `; without ${optional.join(', ')}, which some options need` : '';
  return {
    part: PART,
    name: 'namespaces',
    status: optional.length > 0 ? 'warn' : 'ok',
    text: `mnt, pid, net, ipc, uts${optional.length > 0 ? without : ', user, cgroup'}`,
    ...(optional.length > 0 && { fix: 'Use a kernel with CONFIG_USER_NS and CONFIG_CGROUPS.' }),
  };
}

/** Mounted cgroup hierarchies: proc_mounts(5) lines with type cgroup (version 1) and cgroup2. */
function cgroups(host: HostView): Finding {
  const rows = (host.read('/proc/mounts') ?? '').split('\n').map((line) => line.split(' '));
  const unified = rows.find(([, , type]) => type === 'cgroup2')?.[1];
  const controllers = new Set([
    ...(unified === undefined ? [] : (host.read(`${unified}/cgroup.controllers`) ?? '').trim().split(/\s+/)),
    ...rows.filter(([, , type]) => type === 'cgroup').flatMap(([, , , options = '']) => options.split(',')),
  ]);
  const versions = [
    ...(rows.some(([, , type]) => type === 'cgroup') ? ['1'] : []),
    ...(unified === undefined ? [] : ['2']),
  ];
  if (versions.length === 0)
    return {
      part: PART,
      name: 'cgroups',
      status: 'fail',
      text: 'no cgroup hierarchy is mounted, so containers can be neither limited nor found',
      fix: 'Mount one: mount -t cgroup2 none /sys/fs/cgroup',
    };
  const missing = ['cpu', 'memory', 'pids'].filter((name) => !controllers.has(name));
  if (missing.length === 0)
    return {
      part: PART,
      name: 'cgroups',
      status: 'ok',
      text: `version ${versions.join(' and ')} with cpu, memory, pids`,
    };
  return {
    part: PART,
    name: 'cgroups',
    status: 'warn',
    text: `the ${missing.join(', ')} controller is not there: such limits are refused`,
    fix: `Boot with cgroup_enable=${missing[0]}, or mount the controller.`,
  };
}

function devices(host: HostView): Finding[] {
  const needed = [
    { name: '/dev/net/tun', module: 'tun', number: '10 200', loses: 'containers have no network' },
    { name: '/dev/fuse', module: 'fuse', number: '10 229', loses: 'host folders cannot be mounted' },
  ];
  return needed.map(({ name, module, number, loses }) =>
    host.exists(name)
      ? { part: PART, name, status: 'ok', text: 'there' }
      : {
          part: PART,
          name,
          status: 'fail',
          text: `missing: ${loses}`,
          fix: `Run: modprobe ${module}. In a machine without modules: mknod ${name} c ${number}`,
        },
  );
}

function overlay(host: HostView): Finding {
  const there = /\boverlay$/m.test(host.read('/proc/filesystems') ?? '');
  if (there) return { part: PART, name: 'overlayfs', status: 'ok', text: 'containers share image layers' };
  return {
    part: PART,
    name: 'overlayfs',
    status: 'warn',
    text: 'not there: the vfs driver copies a whole image for every container',
    fix: 'Run: modprobe overlay',
  };
}

function seccomp(host: HostView): Finding {
  const there = host.exists('/proc/sys/kernel/seccomp/actions_avail');
  if (there) return { part: PART, name: 'seccomp', status: 'ok', text: 'system calls are filtered' };
  return {
    part: PART,
    name: 'seccomp',
    status: 'fail',
    text: 'this kernel does not filter system calls, so the default profile cannot be kept',
    fix: 'Use a kernel with CONFIG_SECCOMP_FILTER, or run containers with --security-opt seccomp=unconfined.',
  };
}

/** proc_pid_limits(5): the soft limit is the first number. */
function openFiles(host: HostView): Finding {
  const text = /^Max open files\s+(\S+)\s+(\S+)/m.exec(host.read('/proc/self/limits') ?? '');
  const [, , hard = '0'] = text ?? [];
  // Node raises the soft limit to the hard one when it starts.
  const limit = hard === 'unlimited' ? Number.POSITIVE_INFINITY : Number(hard);
  if (limit >= OPEN_FILES_WANTED)
    return { part: PART, name: 'open files', status: 'ok', text: `up to ${hard}` };
  return {
    part: PART,
    name: 'open files',
    status: 'warn',
    text: `at most ${hard}: busy containers run out of connections`,
    fix: `Raise it where the daemon starts: ulimit -Hn ${OPEN_FILES_WANTED}, or LimitNOFILE in the unit.`,
  };
}
