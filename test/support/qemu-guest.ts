/**
 * A real virtual machine, small enough to start in seconds without hardware virtualisation: Debian's cloud kernel, and an
 * initial RAM disk made here of busybox, the virtio modules and a script. What the script prints is what the test reads.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';

/** The version of an installed cloud kernel, or undefined. */
export function cloudKernel(): string | undefined {
  if (!existsSync('/boot')) return undefined;
  const name = readdirSync('/boot').find((file) => /^vmlinuz-.*cloud-amd64$/.test(file));
  return name?.slice('vmlinuz-'.length);
}

/** Paths of kernel modules, each after those that it needs. Those that are built in are left out. */
function moduleOrder(version: string, names: readonly string[]): string[] {
  const root = `/lib/modules/${version}`;
  const needs = new Map<string, string[]>();
  for (const line of readFileSync(join(root, 'modules.dep'), 'utf8').split('\n')) {
    const [path, rest] = line.split(':');
    if (path && rest !== undefined) needs.set(path, rest.trim().split(' ').filter(Boolean));
  }
  const builtIn = readFileSync(join(root, 'modules.builtin'), 'utf8');
  const ordered: string[] = [];
  const visit = (path: string): void => {
    if (ordered.includes(path)) return;
    for (const need of needs.get(path) ?? []) visit(need);
    ordered.push(path);
  };
  for (const name of names) {
    const path = [...needs.keys()].find((key) => basename(key) === `${name}.ko`);
    if (path) visit(path);
    else if (!builtIn.includes(`/${name}.ko`)) throw new Error(`kernel ${version} has no module ${name}`);
  }
  return ordered.map((path) => join(root, path));
}

const UDHCPC_SCRIPT = `#!/bin/sh
case "$1" in bound|renew)
  ifconfig $interface $ip netmask $subnet mtu \${mtu:-1500}
  route add default gw $router
  echo "nameserver $dns" > /etc/resolv.conf
  echo "dhcp ip=$ip router=$router dns=$dns ntp=$ntpsrv mtu=$mtu"
esac
`;

/** Copies kernel modules into the RAM disk. @returns commands of its script that load them */
export function copyModules(version: string, names: readonly string[], root: string): string {
  const paths = moduleOrder(version, names);
  mkdirSync(join(root, 'modules'), { recursive: true });
  for (const path of paths) copyFileSync(path, join(root, 'modules', basename(path)));
  return paths.map((path) => `insmod /modules/${basename(path)}`).join('\n');
}

/** Copies a program and the libraries that it loads: a static one has none, and ldd says so by failing. */
export function copyProgram(program: string, root: string): void {
  const listing = spawnSync('ldd', [program], { encoding: 'utf8' }).stdout;
  const libraries = [...listing.matchAll(/(\/\S+) \(0x/g)].map((match) => match[1]!);
  for (const path of [program, ...libraries]) {
    mkdirSync(join(root, dirname(path)), { recursive: true });
    cpSync(path, join(root, path), { dereference: true });
  }
}

/** Makes the RAM disk `folder/initrd`, which runs `script` with a configured network and powers off. */
export function makeInitrd(folder: string, version: string, script: string): string {
  const root = join(folder, 'root');
  rmSync(root, { recursive: true, force: true });
  for (const name of ['bin', 'proc', 'sys', 'dev', 'etc']) mkdirSync(join(root, name), { recursive: true });
  cpSync('/bin/busybox', join(root, 'bin/busybox'), { dereference: true });
  // Its /dev/udp speaks UDP, which Debian's busybox has no client for.
  copyProgram('/bin/bash', root);
  const loadModules = copyModules(version, ['virtio_pci', 'virtio_net'], root);
  writeFileSync(join(root, 'etc/udhcpc'), UDHCPC_SCRIPT);
  writeFileSync(
    join(root, 'init'),
    `#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev
${loadModules}
ip link set lo up; ip link set eth0 up
udhcpc -i eth0 -n -q -f -t 10 -T 1 -O ntpsrv -O mtu -s /etc/udhcpc 2>/dev/null
${script}
echo end
poweroff -f
`,
  );
  for (const name of ['init', 'etc/udhcpc']) chmodSync(join(root, name), 0o755);
  return packInitrd(root, join(folder, 'initrd'));
}

/** Packs the folder `root` as the RAM disk `initrd`: as it is, for unpacking takes an emulated processor longer. */
export function packInitrd(root: string, initrd: string): string {
  execFileSync('sh', ['-c', 'find . | cpio -o -H newc --quiet > "$1"', 'sh', initrd], { cwd: root });
  return initrd;
}

/** Runs the machine to its end and returns what it printed, without carriage returns. Rejects when it does not end in time. */
export async function runGuest(options: {
  version: string;
  initrd: string;
  memoryMib: number;
  /** Its network card; without, it has none. */
  network?: { netdev: string; mac: string };
  /** More words for the kernel's command line. */
  append?: string;
  timeoutMs: number;
}): Promise<string> {
  const { version, initrd, memoryMib, network, append = '' } = options;
  const card = network && [
    ...['-netdev', network.netdev],
    ...['-device', `virtio-net-pci,netdev=n0,mac=${network.mac},romfile=`],
  ];
  const child = spawn(
    'qemu-system-x86_64',
    [
      ...['-accel', 'tcg', '-smp', '2', '-m', String(memoryMib)],
      ...['-nodefaults', '-no-user-config', '-nographic', '-no-reboot', '-serial', 'stdio'],
      ...['-kernel', `/boot/vmlinuz-${version}`, '-initrd', initrd],
      ...['-append', `console=ttyS0 quiet panic=-1 mitigations=off tsc=unstable ${append}`],
      ...(card ?? []),
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs);
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  clearTimeout(timer);
  output = output.replaceAll('\r', '');
  if (code !== 0 || !/^end$/m.test(output)) throw new Error(`qemu ended with ${code ?? signal}: ${output}`);
  return output;
}
