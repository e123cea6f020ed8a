/**
 * Ways out of a jail, tried from inside as its root. Run by Node in the jail; prints one JSON array.
 *
 * A probe that is refused with an errno of its denial set, or finds nothing to attack, holds. Success counts as open,
 * and so does any other errno, since then the kernel has got past the permission and only disliked the arguments.
 * That also makes the probes harmless where they are not refused: arguments are such that nothing happens. A new probe
 * must keep to that: files are opened but never written, objects that are named do not exist.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import koffi from 'koffi';
import { SYSCALLS_BY_NAME } from '../../../dist/daemon/runtime/linux/seccomp/syscalls.js';

const machine = process.arch === 'arm64' ? 'aarch64' : 'x86_64';
const rawSyscall = koffi.load(null).func('syscall', 'int64', ['int64', ...Array(6).fill('int64')]);
const errnoNames = new Map(Object.entries(os.constants.errno).map(([name, number]) => [number, name]));
const host = JSON.parse(process.env.PROBE_HOST);

const REFUSED = ['EPERM', 'EACCES', 'EROFS', 'ENOSYS'];
const HIDDEN = [...REFUSED, 'ENOENT', 'ESRCH', 'ECONNREFUSED', 'ENETUNREACH'];

const text = (value) => Buffer.from(`${value}\0`);
const keep = [];
const address = (value) => {
  if (typeof value === 'string') value = text(value);
  if (!(value instanceof Uint8Array)) return value ?? 0;
  keep.push(value);
  return Number(koffi.address(value));
};

function call(number, ...args) {
  const six = [...args.map(address), 0, 0, 0, 0, 0, 0].slice(0, 6);
  const result = Number(rawSyscall(number, ...six));
  if (result >= 0) return result;
  const code = errnoNames.get(koffi.errno()) ?? `errno ${koffi.errno()}`;
  throw Object.assign(new Error(code), { code });
}

function sys(name, ...args) {
  const number = SYSCALLS_BY_NAME.get(name)?.numbers[machine];
  if (number === undefined) throw Object.assign(new Error('not on this machine'), { code: 'ABSENT' });
  return call(number, ...args);
}

const held = (how) => ({ how });
const probes = [];
const add = (group, id, technique, run, denials = REFUSED) =>
  probes.push({ group, id, technique, run, denials });

// --- writing to the kernel's files -------------------------------------------------------------------------------

const openToWrite = (path) => () =>
  fs.closeSync(fs.openSync(path, fs.constants.O_WRONLY | fs.constants.O_NONBLOCK | fs.constants.O_NOCTTY));
const SYSCTLS = {
  'kernel/core_pattern': 'a pipe in core_pattern runs a program of the attacker on the host',
  'kernel/modprobe': 'path of a program that the kernel runs as root',
  'kernel/hotplug': 'path of a program that the kernel runs as root',
  'kernel/poweroff_cmd': 'path of a program that the kernel runs as root',
  'kernel/usermodehelper/bset': 'capabilities of programs that the kernel runs',
  'kernel/sysrq': 'enabling SysRq',
  'kernel/panic': 'machine-wide setting',
  'kernel/panic_on_oops': 'machine-wide setting',
  'kernel/randomize_va_space': 'turning address randomisation off',
  'kernel/kptr_restrict': 'showing kernel addresses',
  'kernel/dmesg_restrict': 'showing kernel messages',
  'kernel/perf_event_paranoid': 'opening perf to all',
  'kernel/unprivileged_bpf_disabled': 'opening bpf to all',
  'kernel/modules_disabled': 'machine-wide setting',
  'kernel/kexec_load_disabled': 'machine-wide setting',
  'kernel/ns_last_pid': 'choosing process numbers',
  'kernel/pid_max': 'exhausting process numbers',
  'kernel/threads-max': 'exhausting threads',
  'kernel/printk': 'machine-wide setting',
  'kernel/yama/ptrace_scope': 'weakening ptrace',
  'vm/overcommit_memory': 'machine-wide memory policy',
  'vm/drop_caches': 'machine-wide denial of service',
  'vm/panic_on_oom': 'machine-wide denial of service',
  'vm/mmap_min_addr': 'null-pointer mappings',
  'vm/swappiness': 'machine-wide memory policy',
  'fs/suid_dumpable': 'core dumps of setuid programs',
  'fs/protected_symlinks': 'weakening link protection',
  'fs/protected_hardlinks': 'weakening link protection',
  'fs/file-max': 'exhausting files',
  'fs/binfmt_misc/register': 'interpreters that run on the host',
  'net/core/bpf_jit_enable': 'machine-wide setting',
  'net/ipv4/ip_forward': 'routing through the host',
  'user/max_user_namespaces': 'machine-wide limit',
};
for (const [path, why] of Object.entries(SYSCTLS))
  add('sysctl', path.replaceAll('/', '.'), why, openToWrite(`/proc/sys/${path}`));

const PROC_WRITES = {
  '/proc/sysrq-trigger': 'rebooting or crashing the host',
  '/proc/irq/default_smp_affinity': 'interrupt routing of the host',
  '/proc/scsi/scsi': 'removing disks of the host (CVE-2017-16539)',
  '/proc/acpi/wakeup': 'power management of the host (CVE-2016-8867 family)',
  '/proc/mtrr': 'memory types of the host',
  '/proc/bus/pci/00/00.0': 'configuration space of devices',
  '/proc/fs/nfsd/threads': 'kernel servers',
  '/proc/timer_stats': 'kernel profiling',
};
for (const [path, why] of Object.entries(PROC_WRITES)) add('proc', path, why, openToWrite(path));

const SYS_WRITES = {
  '/sys/kernel/uevent_helper': 'path of a program that the kernel runs as root',
  '/sys/kernel/profiling': 'kernel profiling',
  '/sys/kernel/mm/ksm/run': 'memory merging of the host',
  '/sys/kernel/mm/transparent_hugepage/enabled': 'machine-wide memory policy',
  '/sys/kernel/kexec_crash_size': 'crash kernel of the host',
  '/sys/kernel/rcu_expedited': 'machine-wide setting',
  '/sys/power/state': 'suspending the host',
  '/sys/power/disk': 'hibernating the host',
  '/sys/module/kernel/parameters/crash_kexec_post_notifiers': 'parameters of the kernel',
  '/sys/module/printk/parameters/time': 'parameters of the kernel',
  '/sys/devices/system/cpu/cpu0/uevent': 'device events of the host',
  '/sys/devices/system/cpu/cpu1/online': 'switching processors off',
  '/sys/devices/system/memory/probe': 'memory hot-plug',
  '/sys/class/net/lo/mtu': 'network devices through sysfs',
  '/sys/class/mem/null/uevent': 'device events, for udev of the host to act on',
  '/sys/block/vda/uevent': 'device events of disks',
  '/sys/block/loop0/queue/scheduler': 'settings of disks',
  '/sys/bus/pci/rescan': 'rescanning the bus of the host',
  '/sys/bus/cpu/drivers_probe': 'binding drivers',
  '/sys/firmware/efi/vars/new_var': 'firmware variables',
};
for (const [path, why] of Object.entries(SYS_WRITES)) add('sysfs', path, why, openToWrite(path));
add(
  'sysfs',
  'mkdir /sys/fs/bpf/x',
  'pinning bpf programs',
  () => fs.mkdirSync('/sys/fs/bpf/drydock-probe'),
  HIDDEN,
);

// --- control groups ----------------------------------------------------------------------------------------------

const GROUP = fs.existsSync('/sys/fs/cgroup/memory') ? '/sys/fs/cgroup/memory' : '/sys/fs/cgroup';
const GROUP_FILES = {
  release_agent: 'a program run on the host when a group is empty (CVE-2022-0492)',
  notify_on_release: 'arming the release agent',
  'cgroup.procs': 'moving processes between groups',
  tasks: 'moving threads between groups',
  'memory.limit_in_bytes': 'lifting the own memory limit',
  'memory.max': 'lifting the own memory limit',
  'cgroup.subtree_control': 'handing controllers down',
};
for (const [file, why] of Object.entries(GROUP_FILES))
  add('cgroup', file, why, openToWrite(`${GROUP}/${file}`));
add('cgroup', 'devices.allow', 'allowing all devices', openToWrite('/sys/fs/cgroup/devices/devices.allow'));
add('cgroup', 'pids.max', 'lifting the own process limit', openToWrite('/sys/fs/cgroup/pids/pids.max'));
add('cgroup', 'mkdir', 'a group with fresh settings', () => fs.mkdirSync(`${GROUP}/drydock-probe`));
add('cgroup', 'own path', 'groups of the host are not visible', () => {
  const paths = fs
    .readFileSync('/proc/self/cgroup', 'utf8')
    .trim()
    .split('\n')
    .map((line) => line.split(':')[2]);
  // A hierarchy without controllers confines nothing; some runtimes leave processes in its root.
  if (paths.every((path) => path === '/' || path === '/..'))
    return held('paths are relative to the own group');
});

// --- what is hidden ------------------------------------------------------------------------------------------------

const masked = (path) => () => {
  if (fs.statSync(path).isDirectory()) return fs.readdirSync(path).length === 0 ? held('empty') : undefined;
  const fd = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK | fs.constants.O_NOCTTY);
  try {
    return fs.readSync(fd, Buffer.alloc(64)) === 0 ? held('empty') : undefined;
  } finally {
    fs.closeSync(fd);
  }
};
const MASKED = {
  '/proc/kcore': 'memory of the kernel',
  '/proc/keys': 'keys of other containers (keyrings are not namespaced)',
  '/proc/timer_list': 'addresses and processes of the host',
  '/proc/interrupts': 'side channel on the host',
  '/proc/sched_debug': 'processes and groups of the host',
  '/proc/latency_stats': 'processes of the host',
  '/proc/scsi': 'disks of the host',
  '/proc/acpi': 'power of the host',
  '/proc/asound': 'sound of the host',
  '/sys/firmware': 'firmware tables',
  '/sys/devices/virtual/powercap': 'power side channel (CVE-2020-8694)',
  '/proc/kmsg': 'messages of the kernel',
  '/sys/kernel/debug': 'debugging interface of the kernel',
  '/sys/kernel/tracing': 'tracing of the host',
  '/sys/kernel/security': 'security modules of the host',
};
for (const [path, why] of Object.entries(MASKED)) add('hidden', path, why, masked(path), HIDDEN);
add(
  'hidden',
  '/proc/kallsyms',
  'addresses of the kernel',
  () =>
    /^[0-9a-f]*[1-9a-f]/m.test(fs.readFileSync('/proc/kallsyms', 'latin1').replace(/ .*$/gm, ''))
      ? undefined
      : held('all zero'),
  HIDDEN,
);
add('hidden', '/proc/self/pagemap', 'physical addresses (rowhammer)', () => {
  const fd = fs.openSync('/proc/self/pagemap', 'r');
  const entry = Buffer.alloc(8);
  const page = address(Buffer.alloc(8192, 1)) >> 0 ? Math.floor(address(keep.at(-1)) / 4096) : 0;
  fs.readSync(fd, entry, 0, 8, page * 8);
  fs.closeSync(fd);
  return (entry.readBigUInt64LE() & 0x7fffffffffffffn) === 0n ? held('frame number is zero') : undefined;
});
add(
  'hidden',
  'chmod of a mask',
  'reaching the device behind a mask',
  () => fs.chmodSync('/proc/keys', 0o600),
  HIDDEN,
);

// --- devices -------------------------------------------------------------------------------------------------------

const node = (type, major, minor) => () => {
  const path = `/tmp/probe-${type}-${major}-${minor}`;
  try {
    execFileSync('mknod', [path, type, String(major), String(minor)], { stdio: 'pipe' });
    fs.closeSync(fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK | fs.constants.O_NOCTTY));
  } finally {
    fs.rmSync(path, { force: true });
  }
};
const DEVICES = [
  ['c', 1, 1, 'mem: memory of the machine'],
  ['c', 1, 2, 'kmem: memory of the kernel'],
  ['c', 1, 4, 'port: input and output ports'],
  ['c', 1, 11, 'kmsg: messages of the kernel'],
  ['c', 4, 0, 'tty0: console of the host'],
  ['c', 4, 64, 'ttyS0: serial console of the host'],
  ['c', 7, 0, 'vcs: text of the console'],
  ['c', 10, 144, 'nvram'],
  ['c', 10, 183, 'hwrng'],
  ['c', 10, 196, 'vfio: devices by DMA'],
  ['c', 10, 200, 'net/tun: network interfaces'],
  ['c', 10, 203, 'cuse'],
  ['c', 10, 223, 'uinput: typing on the host'],
  ['c', 10, 229, 'fuse'],
  ['c', 10, 232, 'kvm'],
  ['c', 10, 234, 'btrfs-control'],
  ['c', 10, 235, 'autofs'],
  ['c', 10, 236, 'device mapper'],
  ['c', 10, 237, 'loop-control'],
  ['c', 10, 238, 'vhost-net'],
  ['c', 108, 0, 'ppp'],
  ['c', 202, 0, 'cpu/0/msr: model-specific registers'],
  ['c', 203, 0, 'cpu/0/cpuid'],
  ['c', 226, 0, 'dri/card0'],
  ['b', 7, 0, 'loop0'],
  ['b', 8, 0, 'sda: disk of the host'],
  ['b', 253, 0, 'device-mapper volume'],
  ['b', 254, 0, 'vda: disk of the host'],
  ['b', 259, 0, 'nvme: disk of the host'],
];
for (const [type, major, minor, what] of DEVICES)
  add('device', `${type} ${major}:${minor}`, `making the node of ${what}`, node(type, major, minor));

// --- mounts --------------------------------------------------------------------------------------------------------

const MS = { RDONLY: 1, REMOUNT: 32, BIND: 4096, MOVE: 8192, REC: 16384, SHARED: 1 << 20 };
const mount = (source, target, type, flags, data) => () =>
  sys('mount', source, target, type, flags, data ?? 0);
fs.mkdirSync('/tmp/probe-mount', { recursive: true });
for (const [type, why] of Object.entries({
  tmpfs: 'any new mount',
  proc: 'a proc without masks',
  sysfs: 'a sysfs that can be written',
  cgroup2: 'control groups that can be written',
  devtmpfs: 'all device nodes of the host',
  debugfs: 'debugging interface of the kernel',
  tracefs: 'tracing of the host',
  securityfs: 'security modules of the host',
  bpf: 'pinned bpf programs of the host',
  overlay: 'overlay tricks (CVE-2021-3493, CVE-2023-0386)',
  fuse: 'a file system of the attacker',
  ext4: 'the disk of the host',
}))
  add(
    'mount',
    `mount ${type}`,
    why,
    mount(type === 'ext4' ? '/dev/vda' : type, '/tmp/probe-mount/none', type, 0),
  );
for (const [id, why, run] of [
  ['bind /', 'the root under another name', mount('/', '/tmp/probe-mount/none', '', MS.BIND)],
  ['remount /sys', 'making /sys writable', mount('none', '/sys/none', '', MS.REMOUNT | MS.BIND)],
  [
    'remount /proc/sys',
    'making /proc/sys writable',
    mount('none', '/proc/sys/none', '', MS.REMOUNT | MS.BIND),
  ],
  [
    'remount /usr',
    'making a read-only volume writable',
    mount('none', '/usr/none', '', MS.REMOUNT | MS.BIND),
  ],
  ['move /proc', 'moving masks away', mount('/proc/none', '/tmp/probe-mount', '', MS.MOVE)],
  ['share /', 'mounts that reach the host by propagation', mount('none', '/none', '', MS.SHARED | MS.REC)],
  ['umount /proc/keys', 'taking a mask away', () => sys('umount2', '/proc/keys/none', 0)],
  ['umount /proc/sys', 'taking read-only away', () => sys('umount2', '/proc/sys/none', 0)],
  ['umount /dev/shm', 'any unmount', () => sys('umount2', '/dev/shm/none', 2)],
  ['pivot_root', 'a new root', () => sys('pivot_root', '/none', '/none')],
  ['open_tree', 'a detached copy of a mount', () => sys('open_tree', -100, '/none', 1)],
  ['move_mount', 'moving mounts by descriptor', () => sys('move_mount', -1, '/none', -1, '/none', 0)],
  ['fsopen', 'new mount API', () => sys('fsopen', 'none', 0)],
  ['fsconfig', 'heap overflow in fsconfig (CVE-2022-0185)', () => sys('fsconfig', -1, 0, 0, 0, 0)],
  ['fsmount', 'new mount API', () => sys('fsmount', -1, 0, 0)],
  ['fspick', 'reconfiguring a mount', () => sys('fspick', -100, '/none', 0)],
  ['mount_setattr', 'clearing read-only', () => sys('mount_setattr', -100, '/none', 0, Buffer.alloc(32), 32)],
])
  add('mount', id, why, run);

// --- namespaces ----------------------------------------------------------------------------------------------------

const SIGHAND_WITHOUT_VM = 0x800;
const NOT_A_FLAG = 0x1;
const CLONE = {
  mount: 0x20000,
  cgroup: 0x2000000,
  uts: 0x4000000,
  ipc: 0x8000000,
  user: 0x10000000,
  pid: 0x20000000,
  network: 0x40000000,
};
for (const [kind, flag] of Object.entries(CLONE)) {
  const why =
    kind === 'user' ? 'all capabilities inside of it (CVE-2022-0185, CVE-2023-32233)' : 'needs CAP_SYS_ADMIN';
  add('namespace', `unshare ${kind}`, why, () => sys('unshare', flag | NOT_A_FLAG));
  add('namespace', `clone ${kind}`, why, () => sys('clone', flag | SIGHAND_WITHOUT_VM, 0, 0, 0, 0));
  add('namespace', `setns ${kind}`, 'joining the namespace of another process', () => sys('setns', -1, flag));
}
add('namespace', 'clone3', 'flags that a filter cannot see', () => sys('clone3', 0, 0));

// --- system calls of the machine's owner -----------------------------------------------------------------------------

for (const [id, why, ...args] of [
  ['init_module', 'loading a module', 0, 0, ''],
  ['finit_module', 'loading a module', -1, '', 0],
  ['delete_module', 'unloading a module', 'drydock-none', 0],
  ['kexec_load', 'another kernel', 0, 99, 0, 0],
  ['kexec_file_load', 'another kernel', -1, -1, 0, 0, 0],
  ['reboot', 'rebooting the host', 0, 0, 0, 0],
  ['acct', 'process accounting into a file', '/none'],
  ['swapon', 'swapping to a file of the attacker', '/none', 0],
  ['swapoff', 'exhausting memory', '/none'],
  ['quotactl', 'quotas of the host', 0, '/none', 0, 0],
  ['quotactl_fd', 'quotas of the host', -1, 0, 0, 0],
  ['syslog', 'messages of the kernel', 3, 0, -1],
  ['settimeofday', 'time of the host', -1, -1],
  ['clock_settime', 'time of the host', 0, -1],
  ['sethostname', 'host name', 0, -1],
  ['setdomainname', 'domain name', 0, -1],
  ['iopl', 'input and output ports', 4],
  ['ioperm', 'input and output ports', 0, 0, 1],
  ['vhangup', 'hanging terminals up'],
  ['bpf', 'programs in the kernel (CVE-2021-31440)', 99, 0, 0],
  ['perf_event_open', 'watching the host (CVE-2013-2094)', -1, 0, 0, -1, 0],
  ['userfaultfd', 'holding the kernel up in races', 0x7fff],
  ['io_uring_setup', 'the largest source of kernel bugs', 1, 0],
  ['io_uring_enter', 'system calls past the filter', -1, 0, 0, 0, 0, 0],
  ['io_uring_register', 'system calls past the filter', -1, 0, 0, 0],
  ['keyctl', 'keyrings are not namespaced', 0, 0, 0],
  ['add_key', 'keyrings are not namespaced (CVE-2016-0728)', 'none', 'none', 0, 0, 0],
  ['request_key', 'runs a program on the host', 'none', 'none', 0, 0],
  ['open_by_handle_at', 'files of the host by handle (shocker, CVE-2014-3519)', -1, 0, 0],
  ['fanotify_init', 'watching the files of the host', 0xffff, 0],
  ['lookup_dcookie', 'paths of the host', 0, 0, 0],
  ['nfsservctl', 'kernel servers', 0, 0, 0],
  ['uselib', 'obsolete loader', '/none'],
  ['_sysctl', 'obsolete sysctl', 0],
  ['sysfs', 'obsolete', 99],
  ['ustat', 'obsolete', 0, 0],
  ['kcmp', 'comparing kernel objects', 1, 1, 99, 0, 0],
  ['pidfd_getfd', 'descriptors of others', -1, 0, 0],
  ['process_madvise', 'memory of others', -1, 0, 0, 0, 0],
  ['move_pages', 'memory placement', 0, 0, 0, 0, 0, 0xffff],
  ['migrate_pages', 'memory placement', 0, -1, 0, 0],
  ['mbind', 'memory placement', 1, 0, 99, 0, 0, 0],
  ['set_mempolicy', 'memory placement', 99, 0, 0],
  ['get_mempolicy', 'memory placement', 0, 0, 0, 0, 0xffff],
  ['set_mempolicy_home_node', 'memory placement', 1, 0, 0, 0],
  ['personality', 'turning address randomisation off', 0x0040000],
])
  add('syscall', id, why, () => sys(id, ...args));
for (const [family, what] of [
  [38, 'AF_ALG: kernel crypto (CVE-2021-0512 family)'],
  [40, 'AF_VSOCK: the hypervisor'],
  [12, 'AF_DECnet: dead protocol'],
  [19, 'AF_ECONET: dead protocol (CVE-2010-3848)'],
  [23, 'AF_IRDA: dead protocol'],
])
  add('syscall', `socket ${family}`, what, () => fs.closeSync(sys('socket', family, 5, 0)));
if (machine === 'x86_64') {
  add('syscall', 'x32 mount', 'the filter by the numbers of another ABI', () =>
    call(0x40000000 + 165, 0, 0, 0, 0, 0),
  );
  add('syscall', 'x32 unshare', 'the filter by the numbers of another ABI', () => call(0x40000000 + 272, 0));
}

// --- capabilities ----------------------------------------------------------------------------------------------------

const SYS_ADMIN = 21;
add('capability', 'capset', 'raising CAP_SYS_ADMIN', () => {
  const header = Buffer.from(new Uint32Array([0x20080522, 0]).buffer);
  const data = Buffer.from(new Uint32Array(6).buffer);
  sys('capget', header, data);
  const bits = new Uint32Array(data.buffer, data.byteOffset, 6);
  bits[0] |= 1 << SYS_ADMIN;
  bits[1] |= 1 << SYS_ADMIN;
  sys('capset', header, data);
});
add('capability', 'file capability', 'a program with CAP_SYS_ADMIN in its attributes', () => {
  const path = '/tmp/probe-filecap';
  fs.copyFileSync('/bin/true', path);
  fs.chmodSync(path, 0o755);
  const value = Buffer.from(new Uint32Array([0x02000001, 1 << SYS_ADMIN, 0, 0, 0]).buffer);
  try {
    sys('setxattr', path, 'security.capability', value, value.length, 0);
    const { error } = spawnSync(path);
    if (error) throw error;
  } finally {
    fs.rmSync(path, { force: true });
  }
});
add('capability', 'ambient', 'handing CAP_SYS_ADMIN down', () => sys('prctl', 47, 2, SYS_ADMIN, 0, 0));
add('capability', 'inheritable', 'inheritable capabilities are empty (CVE-2022-24769)', () =>
  /CapInh:\t0+$/m.test(fs.readFileSync('/proc/self/status', 'utf8')) ? held('empty') : undefined,
);
add('capability', 'nice', 'priority over the host', () => sys('setpriority', 0, 0, -20));
add('capability', 'real-time', 'starving the host', () =>
  sys('sched_setscheduler', 0, 1, Buffer.from([1, 0, 0, 0])),
);
add('capability', 'oom_score_adj', 'never the one that is killed', () =>
  fs.writeFileSync('/proc/self/oom_score_adj', '-1000'),
);
add('capability', 'rlimit', 'raising a hard limit', () =>
  sys('prlimit64', 0, 7, Buffer.from(new BigUint64Array([10n, 1n << 40n]).buffer), 0),
);

// --- network ---------------------------------------------------------------------------------------------------------

const withSocket = (use) => () => {
  const fd = sys('socket', 2, 2, 0);
  try {
    use(fd);
  } finally {
    fs.closeSync(fd);
  }
};
const nobodysInterface = () => {
  const buffer = Buffer.alloc(64);
  buffer.write('drydock-none');
  return buffer;
};
for (const [id, number, why, argument] of [
  ['SIOCSIFMTU', 0x8922, 'interface settings'],
  ['SIOCSIFNAME', 0x8923, 'interface names'],
  ['SIOCSIFHWADDR', 0x8924, 'address of the interface'],
  ['SIOCADDRT', 0x890b, 'routes', Buffer.alloc(128)],
  ['SIOCDARP', 0x8953, 'ARP table', -1],
  ['SIOCBRADDBR', 0x89a0, 'bridges', -1],
])
  add(
    'network',
    id,
    why,
    withSocket((fd) => sys('ioctl', fd, number, argument ?? nobodysInterface())),
  );
add(
  'network',
  'iptables',
  'rewriting the firewall (CVE-2021-22555)',
  withSocket((fd) => sys('setsockopt', fd, 0, 64, Buffer.alloc(8), 8)),
);
add(
  'network',
  'SO_RCVBUFFORCE',
  'memory past the limits',
  withSocket((fd) => sys('setsockopt', fd, 1, 33, Buffer.alloc(4), 4)),
);
add('network', 'AF_KEY', 'IPsec keys of the host', () => fs.closeSync(sys('socket', 15, 3, 2)), [
  ...REFUSED,
  'EAFNOSUPPORT',
]);
const connect = (options) => () =>
  new Promise((resolve, reject) => {
    const socket = net.connect(options, () => resolve(void socket.destroy()));
    socket.on('error', reject);
  });
add(
  'network',
  'loopback of the host',
  'services that listen on 127.0.0.1',
  connect({ port: host.port, host: '127.0.0.1' }),
  HIDDEN,
);
add(
  'network',
  'abstract socket',
  'abstract sockets of the host (CVE-2020-15257)',
  connect({ path: `\0${host.abstract}` }),
  HIDDEN,
);
add(
  'network',
  'interfaces',
  'interfaces of the host',
  () => (fs.readdirSync('/sys/class/net').join() === 'lo' ? held('only lo') : undefined),
  HIDDEN,
);

// --- other processes -------------------------------------------------------------------------------------------------

const { pid } = host;
/** One piece of memory that is not there. */
const vector = () => Buffer.from(new BigUint64Array([8n, 8n]).buffer);
for (const [id, why, run] of [
  ['kill', 'signals to the host', () => sys('kill', pid, 0)],
  ['tgkill', 'signals to the host', () => sys('tgkill', pid, pid, 0)],
  ['pidfd_open', 'descriptors of processes of the host', () => fs.closeSync(sys('pidfd_open', pid, 0))],
  ['ptrace', 'taking a process of the host over', () => sys('ptrace', 0x4206, pid, 0, 0xffffff)],
  [
    'process_vm_readv',
    'memory of a process of the host',
    () => sys('process_vm_readv', pid, vector(), 1, vector(), 1, 0),
  ],
  ['prlimit', 'limits of a process of the host', () => sys('prlimit64', pid, 7, 0, Buffer.alloc(16))],
  ['sched_getaffinity', 'processes of the host', () => sys('sched_getaffinity', pid, 128, Buffer.alloc(128))],
  ['setpriority', 'priority of a process of the host', () => sys('getpriority', 0, pid)],
  ['/proc/PID', 'processes of the host', () => fs.readdirSync(`/proc/${pid}`)],
  ['/proc/PID/root', 'root of a process of the host', () => fs.readdirSync(`/proc/${pid}/root`)],
])
  add('process', id, why, run, HIDDEN);
add(
  'process',
  'process 1',
  'process 1 is the own one',
  () => (fs.readFileSync('/proc/1/cmdline', 'utf8').startsWith('sleep') ? held('the own') : undefined),
  HIDDEN,
);
add('process', 'environment', 'environment of the daemon', () => {
  const all = fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  const seen = all.some((name) => {
    try {
      return fs.readFileSync(`/proc/${name}/environ`, 'latin1').includes(`PROBE_SECRET=${host.secret}`);
    } catch {
      return false;
    }
  });
  return seen ? undefined : held('not seen');
});
add(
  'process',
  'descriptors',
  'descriptors that leaked (CVE-2024-21626)',
  () => {
    const own = fs.readdirSync('/proc/1/fd').sort().join();
    return own === '0,1,2' ? held('only 0, 1, 2') : undefined;
  },
  HIDDEN,
);
add(
  'process',
  'SysV IPC',
  'shared memory of the host',
  () =>
    fs.readFileSync('/proc/sysvipc/shm', 'utf8').trim().split('\n').length === 1 ? held('none') : undefined,
  HIDDEN,
);
add('process', '/dev/shm', 'shared memory of the host', () => fs.statSync(`/dev/shm/${host.shm}`), HIDDEN);
add('process', 'host name', 'UTS namespace', () =>
  os.hostname() === host.hostname ? undefined : held('another'),
);
add('process', 'setsid keyring', 'session keyring of the daemon', () => sys('keyctl', 0, -3, 0));

// --- files -----------------------------------------------------------------------------------------------------------

const root = fs.statSync('/');
const isRoot = (path) => () => {
  const stat = fs.statSync(path);
  return stat.ino === root.ino && stat.dev === root.dev ? held('the own root') : undefined;
};
add('files', 'dot-dot', 'above the root', isRoot('/..'));
add('files', 'many dot-dots', 'above the root', isRoot(`/${'../'.repeat(64)}`));
add('files', '/proc/1/root', 'root of process 1', isRoot('/proc/1/root/'), HIDDEN);
add('files', '/proc/1/cwd', 'working folder of process 1', isRoot('/proc/1/cwd/'), HIDDEN);
add('files', 'marker', 'a file of the host', () => fs.statSync(host.marker), HIDDEN);
add(
  'files',
  'marker by /proc/1/root',
  'a file of the host',
  () => fs.statSync(`/proc/1/root${host.marker}`),
  HIDDEN,
);
add('files', 'read-only volume', 'writing to a read-only volume', () =>
  fs.writeFileSync('/usr/drydock-probe', ''),
);
add('files', 'chroot and back', 'the classic break-out of chroot', () => {
  const fd = fs.openSync('/', fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  fs.mkdirSync('/tmp/probe-chroot', { recursive: true });
  sys('chroot', '/tmp/probe-chroot');
  try {
    sys('fchdir', fd);
    for (let level = 0; level < 64; level++) sys('chdir', '..');
    const stat = fs.statSync('.');
    return stat.ino === root.ino && stat.dev === root.dev ? held('ends at the own root') : undefined;
  } finally {
    sys('fchdir', fd);
    sys('chroot', '.');
    fs.closeSync(fd);
  }
});

const results = [];
for (const { group, id, technique, run, denials } of probes) {
  let outcome = 'open';
  let how = 'succeeded';
  try {
    const result = await run();
    if (result) [outcome, how] = ['held', result.how];
  } catch (error) {
    const code =
      error.code ??
      (/Operation not permitted|Permission denied/.test(error.stderr ?? '') ? 'EPERM' : String(error));
    how = code;
    if (denials.includes(code)) outcome = 'held';
    else if (
      code === 'ABSENT' ||
      (code === 'ENOENT' && ['sysctl', 'proc', 'sysfs', 'cgroup'].includes(group))
    )
      outcome = 'absent';
  }
  results.push({ group, id, technique, outcome, how });
}
process.stdout.write(JSON.stringify(results));
