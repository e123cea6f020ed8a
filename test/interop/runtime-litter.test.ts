/** After many launches nothing is left: no process, cgroup, mount, descriptor, file, user or memory of jails. */
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { jailOwner } from '../../daemon/runtime/plain/promises.ts';
import { linuxUserProcesses } from '../../daemon/runtime/plain/user-processes-linux.ts';
import { CONFINED_CHANGES, Jails, ociCommand, readUntil, text } from './jails.ts';

const jails = new Jails();

/** What this process and the kernel hold. A namespace lives by a process, a descriptor or a mount, which are all here. */
function holdings(of: Jails = jails): Record<string, unknown> {
  const fds = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).replace(/\[?\d+\]?/g, '');
    } catch {
      // The folder that was being read.
      return undefined;
    }
  });
  const groups = ['memory', 'cpu', 'pids', 'freezer'].flatMap((controller) => {
    const path = `/sys/fs/cgroup/${controller}/drydock-${of.instance}`;
    return existsSync(path)
      ? readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory())
      : [];
  });
  return {
    fds: fds.filter(Boolean).sort(),
    groups: groups.length,
    mounts: readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .filter((line) => line.includes(of.root)).length,
    children: readFileSync('/proc/thread-self/children', 'utf8').trim().split(' ').length,
    files: readdirSync(join(dirname(of.root), 'exec'), { recursive: true }).sort(),
  };
}

/** Holdings once the runtime is at rest, with its spare launcher waiting. */
async function settled(like?: Record<string, unknown>): Promise<Record<string, unknown>> {
  await jails.run(['true']);
  if (like) await expect.poll(() => holdings(), { timeout: 10_000 }).toEqual(like);
  return holdings();
}

/** Four of each kind. */
const ROUNDS = 28;

describe('launching again and again', () => {
  beforeAll(() => jails.open());
  // Before the others: its spare launcher would end by itself while they count.
  afterAll(() => jails.close());

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

/** More by `npm run soak:launch`. */
const LAUNCHES = process.env.DRYDOCK_LAUNCHES;

const millisecondsOf = (times: number[], share: number): string =>
  times.sort((a, b) => a - b)[Math.floor(times.length * share)]!.toFixed(0);

describe.each([
  { name: 'linux', usual: 100, oci: false, changes: {} },
  { name: 'plain', usual: 25, oci: false, changes: CONFINED_CHANGES },
  { name: 'runc', usual: 10, oci: true, changes: {} },
  { name: 'crun', usual: 10, oci: true, changes: {} },
])('by $name', ({ name, usual, oci, changes }) => {
  const command = oci ? ociCommand(name) : undefined;
  const own = new Jails(command && { oci: command });
  const count = Number(LAUNCHES ?? usual);
  beforeAll(() => own.open());
  afterAll(async () => {
    await own.close();
    command?.remove();
  });

  it(`${count} jails are launched and killed, and nothing is left`, {
    timeout: 30_000 + count * 2000,
  }, async () => {
    const times: number[] = [];
    const owners: number[] = [];
    const launch = async (): Promise<void> => {
      const spec = own.spec(['sh', '-c', 'echo up; exec sleep 1000'], changes);
      owners.push(jailOwner(spec.id));
      const start = performance.now();
      const jail = await own.runtime.create(spec);
      const main = await jail.start();
      await readUntil(main.stdout, (said) => said.includes('up'));
      times.push(performance.now() - start);
      main.kill('KILL');
      expect((await main.exited).code).toBe(137);
      await jail.destroy();
    };
    await launch();
    await launch();
    const before = holdings(own);
    times.length = 0;
    for (let round = 0; round < count; round++) await launch();
    await expect.poll(() => holdings(own), { timeout: 10_000 }).toEqual(before);
    expect(owners.flatMap((owner) => linuxUserProcesses.list(owner))).toEqual([]);
    if (LAUNCHES)
      console.log(
        `| ${name} | ${count} | ${[0, 0.5, 0.95].map((share) => millisecondsOf(times, share)).join(' | ')} |`,
      );
  });
});
