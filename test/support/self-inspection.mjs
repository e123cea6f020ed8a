/**
 * What a container can find out about its confinement from inside, as amicontained does. Run by Node in it; writes JSON
 * to the file named by its argument: facts by name, each a text, so that two containers can be compared line by line.
 */
import fs from 'node:fs';
import os from 'node:os';
import koffi from 'koffi';
import { CAPABILITIES } from '../../dist/common/native/capabilities.js';
import { SYSCALLS_BY_NAME } from '../../dist/daemon/runtime/linux/seccomp/syscalls.js';

const machine = process.arch === 'arm64' ? 'aarch64' : 'x86_64';
const facts = {};
const read = (path) => {
  try {
    return fs.readFileSync(path, 'utf8').trim();
  } catch (error) {
    return error.code;
  }
};

const status = Object.fromEntries(
  read('/proc/self/status')
    .split('\n')
    .map((line) => line.split(/:\s+/)),
);
for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']) {
  const bits = BigInt(`0x${status[set]}`);
  facts[`capabilities ${set}`] = CAPABILITIES.filter((_name, bit) => bits & (1n << BigInt(bit))).join(' ');
}
for (const name of ['NoNewPrivs', 'Seccomp', 'Uid', 'Gid', 'Groups', 'Umask'])
  facts[`status ${name}`] = status[name] ?? '';
facts['security label'] = read('/proc/self/attr/current').replace(/\0$/, '');
facts['user map'] = read('/proc/self/uid_map').split(/\s+/).join(' ');
facts['oom score'] = read('/proc/self/oom_score_adj');
facts['cgroup path'] = [
  ...new Set(
    read('/proc/self/cgroup')
      .split('\n')
      .map((line) => line.split(':')[2]),
  ),
].join(' ');
facts['process 1'] = String(process.pid === 1 || process.ppid === 1);

const others = JSON.parse(process.env.NAMESPACES);
for (const [kind, link] of Object.entries(others))
  facts[`namespace ${kind}`] = fs.readlinkSync(`/proc/self/ns/${kind}`) === link ? 'the host’s' : 'its own';

// Its own mounts only: those that the test asks for are told apart by their place.
const IGNORED = /^\/(probe|out|bin|lib|lib64|sbin|usr)\b|^\/etc\/(hosts|hostname|resolv.conf)$/;
/** Options of a mount that are about what may be done there; sizes and layers differ by design. */
const ABOUT_USE = ['ro', 'rw', 'nosuid', 'nodev', 'noexec'];
for (const line of read('/proc/self/mountinfo').split('\n')) {
  const [before, after] = line.split(' - ');
  const [, , , , path, options] = before.split(' ');
  if (IGNORED.test(path)) continue;
  const flags = options.split(',').filter((option) => ABOUT_USE.includes(option));
  facts[`mount ${path}`] = [after.split(' ')[0], ...flags].join(' ');
}

for (const name of fs.readdirSync('/dev').sort()) {
  const { mode, rdev } = fs.lstatSync(`/dev/${name}`);
  facts[`device /dev/${name}`] = `${mode.toString(8)} ${rdev >> 8}:${rdev & 255}`;
}

for (const line of read('/proc/self/limits').split('\n').slice(1)) {
  const [name, soft, hard] = line.split(/\s{2,}/);
  facts[`limit ${name}`] = `${soft} ${hard}`;
}

// Last: arguments are such that nothing happens, but those that end the process or wait for ever are left out.
const LEFT_OUT =
  /^(rt_sigreturn|pause|exit|exit_group|fork|vfork|sync|select|pselect6|ppoll|restart_syscall|setsid|rt_sigsuspend|vhangup|uprobe|uretprobe)$/;
const rawSyscall = koffi.load(null).func('syscall', 'int64', ['int64', ...Array(6).fill('int64')]);
const errnos = new Map(Object.entries(os.constants.errno).map(([name, number]) => [number, name]));
const refused = { EPERM: [], ENOSYS: [] };
for (const [name, { numbers }] of [...SYSCALLS_BY_NAME].sort(([a], [b]) => (a < b ? -1 : 1))) {
  const number = numbers[machine];
  if (number === undefined || LEFT_OUT.test(name)) continue;
  if (Number(rawSyscall(number, -1, -1, -1, -1, -1, -1)) >= 0) continue;
  refused[errnos.get(koffi.errno())]?.push(name);
}
for (const [errno, names] of Object.entries(refused))
  for (const name of names) facts[`system call ${name}`] = errno;
fs.writeFileSync(process.argv[2], JSON.stringify(facts));
