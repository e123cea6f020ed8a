/**
 * `drydock service` under a running systemd, on control groups of version 2 and with AppArmor: a virtual machine, since systemd is never
 * started on this one, and its kernel lacks the rest.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { cloudKernel, runGuest } from '../support/qemu-guest.ts';
import { lacking } from '../support/requirements.ts';
import { makeSystemdInitrd, SYSTEMD_GUEST_APPEND, SYSTEMD_GUEST_NEEDS } from '../support/systemd-guest.ts';

/** The machine is emulated: what takes seconds elsewhere may take a minute here. */
const GUEST_MS_MAX = 400_000;

/** Each step prints its name first, in brackets. What has not come after some minutes will not. */
const SCRIPT = `
step() { printf '\\n[%s]\\n' "$1"; }
fact() { systemctl show --value --property="$1" "$2"; }
until_seen() { for i in $(seq 60); do "$@" && return; sleep 1; done; echo "never: $*"; }
is_kept() { docker ps --format '{{.Names}} {{.State}}' | grep 'kept running'; }
is_restarted() { [ "$(fact NRestarts drydock.service) $(fact ActiveState drydock.service)" = '1 active' ]; }
step installed
drydock service install --default
step status
drydock service status --format json
step sockets
stat -c '%a %U %G' /run/drydock/docker.sock
readlink /run/docker.sock
step limits
docker run --rm --memory 64m --pids-limit 50 --cpus 0.5 drydock/host \
  sh -c 'cd /sys/fs/cgroup && cat memory.max pids.max cpu.max' 2>/dev/null
step apparmor
confined() {
  docker run --rm --cap-add SYS_ADMIN "$@" drydock/host sh -c '
    cat /proc/self/attr/current; mount -t tmpfs none /tmp && echo mounts; read line </etc/os-release && echo reads' 2>/dev/null
}
confined
confined --security-opt apparmor=unconfined
echo 'profile own { file, capability, mount, signal, deny /etc/os-release r, }' | apparmor_parser --replace --skip-cache 2>/dev/null
confined --security-opt apparmor=own --security-opt no-new-privileges
step reloaded
systemctl reload drydock.service && fact ActiveState drydock.service
step restarted
docker run -d --name kept --restart always drydock/host sleep 1000 2>/dev/null | wc -c
kill -9 $(fact MainPID drydock.service)
until_seen is_restarted
until_seen is_kept
step stopped
systemctl stop drydock.service 2>/dev/null
fact ActiveState drydock.service; fact ActiveState drydock.socket; pgrep -f 'sleep 1000' | wc -l
step activated
until_seen is_kept
fact ActiveState drydock.service
docker exec kept cat /proc/self/attr/current
step logged
drydock service logs --format json | grep -o 'is ready' | wc -l
step uninstalled
drydock service uninstall --purge
ls -d /run/drydock /run/docker.sock /var/lib/drydock /etc/systemd/system/drydock* /etc/systemd/system/*/drydock* /sys/fs/cgroup/*drydock* 2>/dev/null
systemctl list-units --all --no-legend 'drydock.*'
pgrep -f 'drydock/dist'; grep drydock /proc/self/mountinfo
step delegated
echo 'ann:x:2000:2000::/home/ann:/bin/sh' >>/etc/passwd; echo 'ann:x:2000:' >>/etc/group
echo 'ann:100000:65536' | tee /etc/subuid >/etc/subgid
mkdir -p /home/ann; chown ann:ann /home/ann; chmod 666 /dev/net/tun /dev/fuse
cat >/run/systemd/system/ann.service <<.
[Service]
Type=notify
NotifyAccess=all
User=ann
Delegate=yes
RuntimeDirectory=ann
Environment=HOME=/home/ann XDG_RUNTIME_DIR=/run/ann PATH=/usr/local/bin:/usr/bin
ExecStart=/usr/local/bin/drydock daemon
.
systemctl start ann.service && export DOCKER_HOST=unix:///run/ann/drydock/docker.sock
docker run --name greedy --memory 32m --pids-limit 50 --cpus 0.5 drydock/host \
  sh -c 'cd /sys/fs/cgroup && cat memory.max pids.max cpu.max; exec dd if=/dev/zero of=/dev/null bs=200M count=1' 2>/dev/null
docker inspect --format '{{.State.OOMKilled}} {{.State.ExitCode}}' greedy
systemctl stop ann.service; ls -d /sys/fs/cgroup/system.slice/ann.service 2>/dev/null; pgrep -u ann
`;

/** What each step of {@link SCRIPT} printed. */
function stepsOf(output: string): Record<string, string> {
  const parts = output.split(/^\[(\w+)\]\n/m).slice(1);
  return Object.fromEntries(
    parts.flatMap((part, at) => (at % 2 === 0 ? [[part, parts[at + 1]!.trimEnd()]] : [])),
  );
}

describe.skipIf(
  lacking(
    'qemu-system-x86_64',
    `/boot/vmlinuz-${cloudKernel() ?? 'VERSION-cloud-amd64'}`,
    ...SYSTEMD_GUEST_NEEDS,
  ),
)('the service under systemd', () => {
  let steps: Record<string, string> = {};

  beforeAll(async () => {
    const folder = mkdtempSync(join(tmpdir(), 'drydock-systemd-'));
    try {
      const version = cloudKernel()!;
      const output = await runGuest({
        version,
        initrd: makeSystemdInitrd(folder, version, SCRIPT),
        memoryMib: 1200,
        append: SYSTEMD_GUEST_APPEND,
        timeoutMs: GUEST_MS_MAX,
      });
      steps = stepsOf(output);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }, GUEST_MS_MAX);

  it('is installed, started by its socket, restarted when it dies, stopped with its containers and leaves nothing', () => {
    expect(JSON.parse(steps.status!)).toMatchObject({
      ...{ manager: 'systemd', scope: 'system', installed: true, enabled: true, state: 'active' },
      engine: { name: expect.stringContaining('Drydock') },
    });
    expect(steps).toMatchObject({
      installed: [
        'The service runs, and answers on unix:///run/drydock/docker.sock',
        'Clients that look at /run/docker.sock find it too.',
      ].join('\n'),
      sockets: '660 root root\n/run/drydock/docker.sock',
      limits: '67108864\n50\n50000 100000',
      reloaded: 'active',
      restarted: '65\nkept running',
      stopped: 'inactive\nactive\n0',
      activated: 'kept running\nactive\ndrydock-default (enforce)',
      logged: '3',
      uninstalled: 'The service, its images, containers and volumes are gone.',
    });
  });

  it('confines containers by AppArmor: by its own profile, by one that was named, or by none', () => {
    expect(steps.apparmor!.split('\n')).toEqual([
      // A container with CAP_SYS_ADMIN may mount as far as all but AppArmor are concerned.
      ...['drydock-default (enforce)', 'reads'],
      ...['unconfined', 'mounts', 'reads'],
      ...['own (enforce)', 'mounts'],
    ]);
  });

  it('of an ordinary user keeps limits in the group that systemd has given to the user', () => {
    expect(steps.delegated!.split('\nend\n')[0]!.split('\n')).toEqual([
      ...['33554432', '50', '50000 100000'],
      'true 137',
    ]);
  });
});
