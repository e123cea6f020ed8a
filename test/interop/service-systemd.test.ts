/** `drydock service` under a running systemd, on control groups of version 2: a virtual machine, since systemd is never started on this one. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
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
step logged
drydock service logs --format json | grep -o 'is ready' | wc -l
step uninstalled
drydock service uninstall --purge
ls -d /run/drydock /run/docker.sock /var/lib/drydock /etc/systemd/system/drydock* /etc/systemd/system/*/drydock* /sys/fs/cgroup/*drydock* 2>/dev/null
systemctl list-units --all --no-legend 'drydock.*'
pgrep -f 'drydock/dist'; grep drydock /proc/self/mountinfo
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
  it(
    'is installed, started by its socket, restarted when it dies, stopped with its containers and leaves nothing',
    async () => {
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
        const { status, ...steps } = stepsOf(output);
        expect(JSON.parse(status!)).toMatchObject({
          ...{ manager: 'systemd', scope: 'system', installed: true, enabled: true, state: 'active' },
          engine: { name: expect.stringContaining('Drydock') },
        });
        expect(steps).toEqual({
          installed: [
            'The service runs, and answers on unix:///run/drydock/docker.sock',
            'Clients that look at /run/docker.sock find it too.',
          ].join('\n'),
          sockets: '660 root root\n/run/drydock/docker.sock',
          limits: '67108864\n50\n50000 100000',
          reloaded: 'active',
          restarted: '65\nkept running',
          stopped: 'inactive\nactive\n0',
          activated: 'kept running\nactive',
          logged: '3',
          uninstalled: expect.stringMatching(
            /^The service, its images, containers and volumes are gone\.\nend\n/,
          ),
        });
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    },
    GUEST_MS_MAX,
  );
});
