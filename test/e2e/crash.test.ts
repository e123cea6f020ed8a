/**
 * A daemon that is killed at any of the changes which it makes to the disk comes up again with what was finished, without what was
 * not, and with nothing left over. DRYDOCK_TEST_KILLS tells how many points of each operation are tried: a few by default, `all`
 * for every one.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { below, seededRng } from '#common/rng';
import { fsck } from '../../daemon/store/fsck.ts';
import { type DaemonAddress, IMAGE, TestDaemon } from '../support/e2e/daemon.ts';
import { litterOf } from '../support/e2e/litter.ts';
import { describeE2e } from '../support/e2e/session.ts';
import { startRegistry, type TestRegistry } from '../support/registry.ts';
import { tally } from '../support/tally.ts';

const PRELOAD = fileURLToPath(new URL('../support/faults/fault-points.mjs', import.meta.url));
const KILLS = process.env.DRYDOCK_TEST_KILLS ?? '1';

/** Something that a user asks for, and how to see whether it is done. */
interface Operation {
  name: string;
  /** What must be there before; none of it changes when it is asked for again. */
  before?: string[][];
  /** The command that the daemon is killed in. */
  command: string[];
  input?: () => Buffer;
  /** A command that succeeds when the thing is there: then it must be whole. */
  shown: string[];
  /** Whether the thing is there at the start. */
  removes?: true;
  /** Undoes it. */
  after?: string[][];
}

const CONTEXT = ['FROM drydock/host', 'RUN echo one > /one', 'COPY <<E /two', 'two', 'E', ''].join('\n');

const OPERATIONS: Operation[] = [
  {
    name: 'create',
    command: ['create', '--name', 'cc', '-v', 'vv:/v', '--label', 'a=b', IMAGE, 'true'],
    shown: ['start', '-a', 'cc'],
    after: [
      ['rm', '-f', 'cc'],
      ['volume', 'rm', '-f', 'vv'],
    ],
  },
  {
    name: 'run',
    command: ['run', '-d', '--name', 'cc', IMAGE, 'sleep', '100'],
    shown: ['inspect', 'cc'],
    after: [['rm', '-f', 'cc']],
  },
  {
    name: 'rm',
    before: [['create', '--name', 'cc', IMAGE, 'true']],
    command: ['rm', 'cc'],
    shown: ['start', '-a', 'cc'],
    removes: true,
  },
  {
    name: 'commit',
    before: [['run', '--name', 'cc', IMAGE, 'touch', '/kept']],
    command: ['commit', 'cc', 'made'],
    shown: ['run', '--rm', 'made', 'test', '-e', '/kept'],
    after: [
      ['rmi', '-f', 'made'],
      ['rm', '-f', 'cc'],
    ],
  },
  {
    name: 'build',
    command: ['build', '-t', 'built', '-'],
    input: () => Buffer.from(CONTEXT),
    shown: ['run', '--rm', 'built', 'cat', '/one', '/two'],
    after: [
      ['rmi', '-f', 'built'],
      ['builder', 'prune', '-af'],
    ],
  },
  {
    name: 'load',
    command: ['load'],
    input: () => archive,
    shown: ['run', '--rm', 'loaded', 'test', '-e', '/kept'],
    after: [['rmi', '-f', 'loaded']],
  },
  {
    name: 'pull',
    command: ['pull', '@registry/loaded'],
    shown: ['run', '--rm', '--pull', 'never', '@registry/loaded', 'test', '-e', '/kept'],
    after: [['rmi', '-f', '@registry/loaded']],
  },
  {
    name: 'rmi',
    before: [['load', '-i', '@archive']],
    command: ['rmi', 'loaded'],
    shown: ['run', '--rm', 'loaded', 'test', '-e', '/kept'],
    removes: true,
  },
  {
    name: 'volume create',
    command: ['volume', 'create', '--label', 'a=b', 'vv'],
    shown: ['volume', 'inspect', 'vv'],
    after: [['volume', 'rm', '-f', 'vv']],
  },
  {
    name: 'volume rm',
    before: [['run', '--rm', '-v', 'vv:/v', IMAGE, 'touch', '/v/x']],
    command: ['volume', 'rm', 'vv'],
    shown: ['volume', 'inspect', 'vv'],
    removes: true,
  },
  {
    name: 'network create',
    command: ['network', 'create', 'nn'],
    shown: ['run', '--rm', '--network', 'nn', IMAGE, 'true'],
    after: [['network', 'rm', 'nn']],
  },
  {
    name: 'network rm',
    before: [['network', 'create', 'nn']],
    command: ['network', 'rm', 'nn'],
    shown: ['run', '--rm', '--network', 'nn', IMAGE, 'true'],
    removes: true,
  },
  {
    name: 'network connect',
    before: [
      ['network', 'create', 'nn'],
      ['create', '--name', 'cc', IMAGE, 'true'],
    ],
    command: ['network', 'connect', '--alias', 'other', 'nn', 'cc'],
    shown: ['start', '-a', 'cc'],
    after: [
      ['rm', '-f', 'cc'],
      ['network', 'rm', 'nn'],
    ],
  },
  {
    name: 'prune',
    before: [
      ['create', '--name', 'cc', '-v', '/anonymous', IMAGE, 'true'],
      ['create', '--name', 'dd', IMAGE, 'true'],
    ],
    command: ['container', 'prune', '-f'],
    shown: ['start', '-a', 'cc'],
    removes: true,
  },
];

let archive: Buffer;

describeE2e('a daemon killed in the middle of', () => {
  let folder: string;
  let address: DaemonAddress;
  let daemon: TestDaemon;
  let registry: TestRegistry;
  const rng = seededRng(1);

  const launch = async (): Promise<void> => {
    daemon = await TestDaemon.launch(address, ['--shutdown-timeout', '0'], {
      env: {
        NODE_OPTIONS: `--import ${PRELOAD}`,
        DRYDOCK_FAULT_FOLDER: folder,
      },
    });
  };
  /** Arms the daemon: it ends at its `point`th change from now; 0 counts only. */
  const arm = (point: number): void => {
    rmSync(join(folder, 'trace'), { force: true });
    writeFileSync(join(folder, 'plan'), String(point));
  };
  /** Disarms it. @returns the changes that were made */
  const disarm = (): string[] => {
    rmSync(join(folder, 'plan'), { force: true });
    return readFileSync(join(folder, 'trace'), 'utf8').trim().split('\n');
  };
  const words = (command: string[]): string[] =>
    command.map((word) =>
      word.replace('@archive', join(folder, 'archive.tar')).replace('@registry', registry.domain),
    );
  const prepare = async ({ before = [] }: Operation): Promise<void> => {
    for (const command of before) await daemon.ok(words(command));
  };
  const undo = async ({ after = [] }: Operation): Promise<void> => {
    for (const command of after) await daemon.run(words(command));
  };

  beforeEach(async () => {
    // After a failure in the middle.
    if (daemon.process.exitCode !== null || daemon.process.signalCode !== null) await launch();
  });
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'drydock-faults-'));
    address = TestDaemon.makeAddress();
    registry = await startRegistry();
    await launch();
    await daemon.ok(['run', '--name', 'cc', IMAGE, 'touch', '/kept']);
    await daemon.ok(['commit', 'cc', 'loaded']);
    await daemon.ok(['save', '-o', join(folder, 'archive.tar'), 'loaded']);
    archive = readFileSync(join(folder, 'archive.tar'));
    const pulled = `${registry.domain}/loaded`;
    for (const command of [
      ['tag', 'loaded', pulled],
      ['push', pulled],
      ['rmi', pulled],
    ])
      await daemon.ok(command);
    await daemon.ok(['rm', 'cc']);
    await daemon.ok(['rmi', 'loaded']);
  });
  afterAll(async () => {
    await daemon?.stop();
    await registry?.close();
    expect(litterOf(address)).toEqual([]);
    const { damage, leftovers } = await fsck(address.dataRoot);
    expect([...damage, ...leftovers].map(({ path, text }) => `${path}: ${text}`)).toEqual([]);
    TestDaemon.forget(address);
    rmSync(folder, { recursive: true, force: true });
  });

  it.each(OPERATIONS)('$name: what is there afterwards is whole, and nothing else is', async (operation) => {
    const options = operation.input ? { input: operation.input() } : {};
    await prepare(operation);
    arm(0);
    await daemon.ok(words(operation.command), options);
    const changes = disarm();
    expect(changes.length).toBeGreaterThan(0);
    await undo(operation);

    for (const point of pointsOf(changes.length)) {
      const at = `${operation.name}, killed at change ${point} of ${changes.length}: ${changes[point - 1]}`;
      await prepare(operation);
      arm(point);
      await daemon.run(words(operation.command), options);
      // How many changes there are varies with what runs beside: then it was not reached, and nothing is shown.
      if (disarm().length >= point) {
        expect(await daemon.exited, at).toBe('SIGKILL');
        tally('kills');
        expect((await fsck(address.dataRoot)).damage, at).toEqual([]);
        await launch();
      }
      const shown = await daemon.run(words(operation.shown));
      if (shown.code !== 0) expect(shown.stderr, at).toMatch(/no such|not found|unable to find image/i);
      await undo(operation);
      await daemon.run(operation.removes ? words(operation.command) : ['version'], options);
      const { code, stderr } = await daemon.run(words(operation.shown));
      expect(code, `${at}: it is still there after its removal: ${stderr}`).not.toBe(0);
    }
  });

  /** The points to try: some of them by a seed, or all. */
  function pointsOf(count: number): number[] {
    if (KILLS === 'all') return Array.from({ length: count }, (_, index) => index + 1);
    return Array.from({ length: Number(KILLS) }, () => 1 + below(rng, count));
  }
});
