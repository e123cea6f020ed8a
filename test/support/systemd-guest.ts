/**
 * A virtual machine whose first process is this machine's systemd, with Drydock as npm would install it: the only place where a service is
 * really installed. systemd must never be started on the machine of the tests itself, in whatever namespace: it takes devices,
 * sysctls and temporary files for its own.
 */
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { copyModules, copyProgram, packInitrd } from './qemu-guest.ts';
import { findProgram } from './requirements.ts';

const repository = fileURLToPath(new URL('../..', import.meta.url));

/** systemd's manager and all that a minimal machine starts by it. */
const SYSTEMD = ['/lib/systemd/systemd', '/lib/systemd/systemd-journald', '/lib/systemd/systemd-executor'];
const PROGRAMS = [
  ...['bash', 'node', 'systemctl', 'journalctl', 'mount', 'umount', 'ps', 'pgrep', 'docker'],
  ...['apparmor_parser', 'newuidmap', 'newgidmap'],
];
/** What of /etc programs look up names in, and profiles of AppArmor are made of. */
const ETC = [
  ...['passwd', 'group', 'nsswitch.conf', 'ld.so.cache', 'os-release'],
  ...['abi', 'abstractions', 'tunables'].map((name) => `apparmor.d/${name}`),
];

/** What {@link makeSystemdInitrd} copies from, for `lacking()`. */
export const SYSTEMD_GUEST_NEEDS: readonly string[] = [
  SYSTEMD[0]!,
  '/bin/busybox',
  'cpio',
  'dpkg',
  ...PROGRAMS,
];

/** What Drydock's package and its dependencies are: those of the lock file that are not for development. */
function copyPackage(to: string): void {
  const { packages } = JSON.parse(readFileSync(join(repository, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean }>;
  };
  const installed = Object.entries(packages).filter(([, { dev }]) => !dev);
  // Binaries for other platforms are in the lock file only.
  for (const [path] of [['dist'], ['package.json'], ...installed.filter(([path]) => path !== '')])
    if (existsSync(join(repository, path)))
      cpSync(join(repository, path), join(to, path), { recursive: true });
}

/** systemd's files as the package lays them, without those that no machine without a keyboard starts. */
function copySystemd(root: string): void {
  const listed = execFileSync('dpkg', ['-L', 'systemd'], { encoding: 'utf8' }).split('\n');
  for (const path of listed)
    if (/^(\/usr)?\/lib\/systemd\/|^\/etc\/systemd\//.test(path) && !lstatSync(path).isDirectory())
      cpSync(path, join(root, path), { verbatimSymlinks: true });
  for (const program of SYSTEMD) if (existsSync(program)) copyProgram(program, root);
}

/**
 * Makes the RAM disk `folder/initrd`: systemd starts `guest-script.service`, which runs `script` once the machine is up; its output is the
 * machine's. The machine ends with the script.
 */
export function makeSystemdInitrd(folder: string, version: string, script: string): string {
  const root = join(folder, 'root');
  rmSync(root, { recursive: true, force: true });
  for (const name of [
    'proc',
    'sys',
    'dev',
    'etc/systemd/system',
    'run',
    'tmp',
    'var',
    'root',
    'usr/local/bin',
  ])
    mkdirSync(join(root, name), { recursive: true });
  for (const name of ['bin', 'lib', 'lib64', 'sbin']) {
    mkdirSync(join(root, 'usr', name), { recursive: true });
    symlinkSync(`usr/${name}`, join(root, name));
  }
  for (const program of PROGRAMS) copyProgram(findProgram(program)!, root);
  copySystemd(root);
  copyPackage(join(root, 'opt/drydock'));
  for (const name of ETC)
    cpSync(join('/etc', name), join(root, 'etc', name), { dereference: true, recursive: true });
  cpSync('/bin/busybox', join(root, 'bin/busybox'), { dereference: true });
  for (const applet of execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).trim().split('\n'))
    if (!existsSync(join(root, 'usr/bin', applet)) && !existsSync(join(root, 'usr/sbin', applet)))
      symlinkSync('busybox', join(root, 'usr/bin', applet));
  symlinkSync('/run', join(root, 'var/run'));
  const entry = '/opt/drydock/dist/daemon/bin.js';
  chmodSync(join(root, entry), 0o755);
  symlinkSync(entry, join(root, 'usr/local/bin/drydock'));
  const loadModules = copyModules(version, ['fuse', 'overlay', 'tun'], root);
  const units: Record<string, string> = {
    'guest-script.service': `[Unit]
After=basic.target
[Service]
Type=oneshot
Environment=HOME=/root PATH=/usr/local/bin:/usr/bin:/usr/sbin
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
ExecStart=/bin/bash -c '/bin/bash /script 2>&1 | cat'
ExecStopPost=/bin/systemctl poweroff --force --force
`,
    'guest-script.target': `[Unit]
Requires=multi-user.target
Wants=guest-script.service
AllowIsolate=yes
`,
  };
  for (const [name, text] of Object.entries(units))
    writeFileSync(join(root, 'etc/systemd/system', name), text);
  writeFileSync(join(root, 'etc/machine-id'), '');
  writeFileSync(join(root, 'script'), `${script}\necho end\n`);
  writeFileSync(
    join(root, 'init'),
    `#!/bin/busybox sh
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev
${loadModules}
# pivot_root(2), which containers need, refuses the kernel's first root: a second mount of the same is none.
mount --bind / /root; cd /root; mount --move . /; exec chroot . /lib/systemd/systemd
`,
  );
  chmodSync(join(root, 'init'), 0o755);
  return packInitrd(root, join(folder, 'initrd'));
}

/** Words for the kernel's command line. */
export const SYSTEMD_GUEST_APPEND = 'systemd.unit=guest-script.target systemd.show_status=0 loglevel=1';
