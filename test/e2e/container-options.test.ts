/** Options of `docker run` and `docker rm` that are seen in the container or in its control groups. */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { afterEach, beforeAll, expect, it } from 'vitest';
import { type Docker, IMAGE } from '../support/e2e/daemon.ts';
import { describeE2e, sharedDocker, uniqueName } from '../support/e2e/session.ts';

/** Whether control groups have a hierarchy for each controller. */
const legacy = readFileSync('/proc/self/mountinfo', 'utf8').includes(' - cgroup cgroup rw,memory');

describeE2e('options of containers', () => {
  let docker: Docker;

  beforeAll(() => {
    docker = sharedDocker();
  });
  afterEach(() => docker.removeAll());

  it('--cgroup-parent puts the container below another group, which goes with it when it was made for it', async () => {
    const parent = `/drydock-test-${process.pid}/inner`;
    const args = ['run', '-d', '--cgroup-parent', parent, IMAGE, 'sleep', '1000'];
    const id = await docker.ok(args);
    const { State } = await docker.inspect<{ State: { Pid: number } }>(id);
    const groups = readFileSync(`/proc/${State.Pid}/cgroup`, 'utf8');
    expect(groups).toContain(`:${parent}/${id}\n`);
    await docker.ok(['rm', '-f', id]);
    const [top = ''] = parent.slice(1).split('/');
    const left = execFileSync('find', ['/sys/fs/cgroup', '-maxdepth', '2', '-name', top], {
      encoding: 'utf8',
    });
    expect(left).toBe('');
  });

  it('limits of block devices, swappiness and the OOM killer reach the kernel, or are warned of', async () => {
    const [disk] = readdirSync('/sys/block');
    const number = readFileSync(`/sys/block/${disk}/dev`, 'utf8').trim();
    const [major = '', minor = ''] = number.split(':');
    // The node may be missing in /dev: a container makes one that the test can name.
    const node = `/dev/drydock-test-${process.pid}`;
    execFileSync('mknod', [node, 'b', major, minor]);
    try {
      const name = uniqueName('limits');
      const { stdout, stderr } = await docker.run([
        ...['run', '--rm', '--name', name, '--device-read-bps', `${node}:1mb`],
        ...[
          '--device-write-iops',
          `${node}:77`,
          '-m',
          '64m',
          '--memory-swappiness',
          '0',
          '--oom-kill-disable',
          IMAGE,
          'sh',
          '-c',
        ],
        'cd /sys/fs/cgroup; cat io.max blkio/blkio.throttle.read_bps_device blkio/blkio.throttle.write_iops_device memory/memory.swappiness memory/memory.oom_control 2>/dev/null; true',
      ]);
      if (legacy) {
        expect(stdout).toContain(`${number} 1048576\n${number} 77\n0\noom_kill_disable 1\n`);
        expect(stderr).toBe('');
      } else {
        expect(stdout).toContain(`${number} rbps=1048576 wbps=max riops=max wiops=77\n`);
        expect(stderr).toMatch(/memory swappiness: .*none[\s\S]*oom kill disable: .*none/);
      }
    } finally {
      execFileSync('rm', [node]);
    }
  });

  it('--ipc container: shares memory and semaphores with one that is shareable, and only with such a one', async () => {
    const [donor, closed] = [uniqueName('donor'), uniqueName('closed')];
    await docker.ok([
      'run',
      '-d',
      '--name',
      donor,
      '--ipc',
      'shareable',
      '--shm-size',
      '1m',
      IMAGE,
      'sleep',
      '1000',
    ]);
    await docker.ok(['run', '-d', '--name', closed, IMAGE, 'sleep', '1000']);
    await docker.ok(['exec', donor, 'sh', '-c', 'echo shared > /dev/shm/note']);
    const script = 'cat /dev/shm/note; readlink /proc/self/ns/ipc; df -k --output=size /dev/shm | tail -1';
    const [note, ipc, size] = (
      await docker.ok(['run', '--rm', '--ipc', `container:${donor}`, IMAGE, 'sh', '-c', script])
    ).split('\n');
    expect([note, size?.trim()]).toEqual(['shared', '1024']);
    expect(await docker.ok(['exec', donor, 'readlink', '/proc/self/ns/ipc'])).toBe(ipc);
    const refused = await docker.run(['run', '--rm', '--ipc', `container:${closed}`, IMAGE, 'true']);
    expect(refused.stderr).toContain(
      'non-shareable IPC (hint: use IpcMode:shareable for the donor container)',
    );
  });

  it('rm --link removes the name that one container has for another, and nothing else', async () => {
    const [db, web] = [uniqueName('db'), uniqueName('web')];
    await docker.ok(['run', '-d', '--name', db, IMAGE, 'sleep', '1000']);
    await docker.ok(['run', '-d', '--name', web, '--link', `${db}:store`, IMAGE, 'sleep', '1000']);
    expect(await docker.ok(['exec', web, 'cat', '/etc/hosts'])).toContain('store');
    expect(await docker.ok(['ps', '--no-trunc', '--format', '{{.Names}}'])).toContain(`${db},${web}/store`);
    const { HostConfig } = await docker.inspect<{ HostConfig: { Links: string[] } }>(web);
    expect(HostConfig.Links).toEqual([`/${db}:/${web}/store`]);
    await docker.ok(['rm', '--link', `${web}/store`]);
    expect(await docker.ok(['exec', web, 'cat', '/etc/hosts'])).not.toContain('store');
    expect((await docker.run(['rm', '--link', `${web}/store`])).stderr).toContain('No such container');
    expect((await docker.run(['rm', '--link', db])).stderr).toContain('cannot remove the default link name');
    expect((await docker.ok(['ps', '--format', '{{.Names}}'])).split('\n').sort()).toEqual([db, web].sort());
  });
});
