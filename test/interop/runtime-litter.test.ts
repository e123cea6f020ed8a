/** After many launches nothing is left: no process, cgroup, mount, descriptor, memory of jails. */
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Jails, text } from './jails.ts';

/** More by hand: DRYDOCK_LAUNCHES=1000. */
const ROUNDS = Number(process.env.DRYDOCK_LAUNCHES ?? 50);
const jails = new Jails();
beforeAll(() => jails.open());
afterAll(() => jails.close());

/** What this process and the kernel hold. */
function holdings(): Record<string, unknown> {
  const fds = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).replace(/\[?\d+\]?/g, '');
    } catch {
      // The folder that was being read.
      return undefined;
    }
  });
  const groups = ['memory', 'cpu', 'pids', 'freezer'].flatMap((controller) => {
    const path = `/sys/fs/cgroup/${controller}/drydock-${jails.instance}`;
    return existsSync(path)
      ? readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory())
      : [];
  });
  return {
    fds: fds.filter(Boolean).sort(),
    groups: groups.length,
    mounts: readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .filter((line) => line.includes(jails.root)).length,
    children: readFileSync('/proc/thread-self/children', 'utf8').trim().split(' ').length,
  };
}

/** Holdings once the runtime is at rest, with its spare launcher waiting. */
async function settled(like?: Record<string, unknown>): Promise<Record<string, unknown>> {
  await jails.run(['true']);
  if (like) await expect.poll(holdings, { timeout: 10_000 }).toEqual(like);
  return holdings();
}

describe('launching again and again', () => {
  it('leaves nothing, whatever became of the jail', async () => {
    await jails.run(['true'], { process: { terminal: true } });
    await jails.run(['true'], { init: true });
    const before = await settled();
    for (let round = 0; round < ROUNDS; round++) {
      switch (round % 7) {
        case 0:
          await jails.run(['true']);
          break;
        case 1:
          await jails.run(['no-such-program']).catch(() => {});
          break;
        case 2:
          await jails.run(['true'], { process: { user: 'nobody-here' } }).catch(() => {});
          break;
        case 3: {
          const jail = await jails.runtime.create(jails.spec(['true'], { process: { terminal: true } }));
          await jail.destroy();
          break;
        }
        case 4:
          // Nobody reads the output, and the jail is destroyed while it runs and others run in it.
          await jails.withJail(
            { init: round % 2 === 0 },
            async (jail) => {
              const further = await jail.exec(jails.process(['sleep', 'infinity'], { stdin: true }));
              await jail.exec(jails.process(['yes'], { terminal: true }));
              expect(further.pid).toBeGreaterThan(0);
            },
            ['yes'],
          );
          break;
        case 5: {
          const mounts = [
            { kind: 'bind' as const, source: '/no/such', target: '/x', readOnly: false, options: [] },
          ];
          await jails.run(['true'], { mounts }).catch(() => {});
          break;
        }
        default:
          await jails.sh('sleep 100 & echo hi', { process: { terminal: true } });
      }
    }
    await settled(before);
  });

  it('side by side, each has its own', async () => {
    const before = await settled();
    const all = await Promise.all(
      Array.from({ length: 8 }, (_, index) =>
        jails.sh(`hostname; echo ${index}; exit ${index}`, { hostname: `h${index}` }),
      ),
    );
    all.forEach(({ stdout, status }, index) => {
      expect([stdout, status.code]).toEqual([`h${index}\n${index}\n`, index]);
    });
    await settled(before);
  });

  it('gives up a jail whose output nobody has read', async () => {
    const before = await settled();
    const jail = await jails.runtime.create(jails.spec(['sh', '-c', 'yes | head -c 300000']));
    const main = await jail.start();
    main.kill('KILL');
    await main.exited;
    await jail.destroy();
    expect(main.stdout.destroyed).toBe(true);
    await settled(before);
  });

  it('lets output be read after the end of the program', async () => {
    const jail = await jails.runtime.create(jails.spec(['sh', '-c', 'echo late; echo words >&2']));
    const main = await jail.start();
    await main.exited;
    expect([await text(main.stdout), await text(main.stderr)]).toEqual(['late\n', 'words\n']);
    await jail.destroy();
  });

  it('tells the end of output even when there was none and nobody listened', async () => {
    await jails.withJail({}, async (jail) => {
      for (const terminal of [false, true]) {
        const silent = await jail.exec(jails.process(['true'], { terminal }));
        await silent.exited;
        // Time for the streams to meet their end.
        await new Promise((resolve) => setTimeout(resolve, 100));
        const ended = new Promise((resolve) => silent.stdout.once('end', () => resolve('end')));
        silent.stdout.resume();
        expect(await ended).toBe('end');
      }
    });
  });
});
