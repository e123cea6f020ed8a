/**
 * The power goes while the daemon works: what it has acknowledged and put on the disk is there afterwards, what it could not put there
 * is gone as a whole, and nothing that is damaged passes as good. The disk is a recorded one, with a real file system on it, whose
 * writes since the last flush are dropped.
 *
 * DRYDOCK_TEST_CUTS tells how many points are tried, DRYDOCK_TEST_CUT_SEED from which seed, and
 * DRYDOCK_TEST_FILE_SYSTEM on what: ext4, xfs or btrfs.
 */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compiledEntry } from '#common/entry';
import { below, seededRng, uniform } from '#common/rng';
import {
  type DaemonAddress,
  type Finished,
  finish,
  IMAGE,
  TestDaemon,
  until,
} from '../support/e2e/daemon.ts';
import { litterOf } from '../support/e2e/litter.ts';
import { E2E_NEEDS } from '../support/e2e/shared-daemon.ts';
import { RecordedDisk } from '../support/faults/recorded-disk.ts';
import { dockerArchive, file } from '../support/images.ts';
import { lacking } from '../support/requirements.ts';
import { tally } from '../support/tally.ts';

const CUTS = Number(process.env.DRYDOCK_TEST_CUTS ?? '2');
const SEED = Number(process.env.DRYDOCK_TEST_CUT_SEED ?? '1');
const FILE_SYSTEM = process.env.DRYDOCK_TEST_FILE_SYSTEM ?? 'ext4';
const DISK_BYTES = 1024 * 1024 * 1024;
const LARGE_BYTES = 3_000_000;
const BUILT = ['FROM drydock/host', 'RUN echo one > /one', ''].join('\n');

/** Something that is asked of the daemon, and how to see that it is done. */
interface Step {
  command: string[];
  input?: () => Buffer | string;
  /** Succeeds with this output when it is there and whole. */
  shown?: [command: string[], output: string];
  /** What the file system is flushed for before the answer. Images come to the disk some seconds later. */
  isDurable?: true;
}

const STEPS: Step[] = [
  {
    command: ['volume', 'create', '--label', 'a=b', 'vv'],
    shown: [['volume', 'inspect', '-f', '{{.Labels.a}}', 'vv'], 'b'],
    isDurable: true,
  },
  {
    command: ['network', 'create', '--subnet', '10.77.0.0/24', 'nn'],
    shown: [['network', 'inspect', '-f', '{{(index .IPAM.Config 0).Subnet}}', 'nn'], '10.77.0.0/24'],
    isDurable: true,
  },
  {
    command: ['create', '--name', 'cc', '-v', 'vv:/v', IMAGE, 'echo', 'made'],
    shown: [['start', '-a', 'cc'], 'made'],
    isDurable: true,
  },
  {
    command: ['load'],
    input: () => archive,
    shown: [['create', '--pull', 'never', '--name', 'of-loaded', 'loaded', '/x'], ''],
  },
  {
    command: ['run', '--name', 'writes', '-v', 'vv:/v', IMAGE].concat([
      'sh',
      '-c',
      'test -e /v/f || { echo kept > /v/f; echo kept > /f; sync /v/f /v /f /; }; cat /v/f /f',
    ]),
    shown: [['start', '-a', 'writes'], 'kept\nkept'],
    isDurable: true,
  },
  { command: ['rename', 'former', 'dd'], shown: [['start', '-a', 'dd'], 'named'], isDurable: true },
  {
    command: ['commit', 'writes', 'made'],
    shown: [['run', '--rm', '--pull', 'never', 'made', 'cat', '/f'], 'kept'],
  },
  {
    command: ['tag', 'made', 'named'],
    shown: [['run', '--rm', '--pull', 'never', 'named', 'cat', '/f'], 'kept'],
  },
  {
    command: ['build', '-t', 'built', '-'],
    input: () => BUILT,
    shown: [['run', '--rm', '--pull', 'never', 'built', 'cat', '/one'], 'one'],
  },
  { command: ['rm', 'old'] },
  { command: ['rmi', 'oldimage'] },
  { command: ['network', 'rm', 'oldnet'] },
  { command: ['volume', 'rm', 'oldvol'] },
];
/** What the last steps remove: until they are asked for it must be there. */
const REMOVED: [command: string[], output: string][] = [
  [['start', '-a', 'old'], 'old'],
  [['run', '--rm', '--pull', 'never', 'oldimage', 'cat', '/old'], 'old'],
  [['network', 'inspect', '-f', '{{.Name}}', 'oldnet'], 'oldnet'],
  [['volume', 'inspect', '-f', '{{.Name}}', 'oldvol'], 'oldvol'],
];

let archive: Buffer;

/** When something was asked, when it was answered, and when the image that it made was on the disk. */
interface Times {
  asked: number;
  answered: number;
}

const needs = [...E2E_NEEDS, '/dev/loop-control', `mkfs.${FILE_SYSTEM}`, 'unshare', 'nsenter'];

describe.skipIf(lacking(...needs))('a machine whose power goes', () => {
  const rng = seededRng(SEED);
  let folder: string;
  let address: DaemonAddress;
  let disk: RecordedDisk;
  let start: number;
  let settled: number;
  const times: Times[] = [];

  beforeAll(async () => {
    address = TestDaemon.makeAddress();
    folder = mkdtempSync(join(tmpdir(), 'drydock-disk-'));
    archive = dockerArchive([[file('x', randomBytes(LARGE_BYTES), { mode: 0o755 })]], { names: ['loaded'] });
    disk = new RecordedDisk(folder, DISK_BYTES, FILE_SYSTEM, address.dataRoot);
    const { wrapper } = disk;
    const daemon = await TestDaemon.launch(address, ['--shutdown-timeout', '0'], { wrapper });
    try {
      await daemon.ok(['create', '--name', 'old', IMAGE, 'echo', 'old']);
      await daemon.ok(['run', '--name', 'xx', IMAGE, 'sh', '-c', 'echo old > /old']);
      await daemon.ok(['commit', 'xx', 'oldimage']);
      await daemon.ok(['rm', 'xx']);
      await daemon.ok(['create', '--name', 'former', IMAGE, 'echo', 'named']);
      await daemon.ok(['network', 'create', 'oldnet']);
      await daemon.ok(['volume', 'create', 'oldvol']);
      await imagesAreSynced();
      start = disk.now;
      for (const { command, input } of STEPS) {
        const asked = disk.now;
        await daemon.ok(command, input && { input: input() });
        times.push({ asked, answered: disk.now });
      }
      await imagesAreSynced();
      settled = disk.now;
    } finally {
      await daemon.stop();
      disk.end();
    }
  });
  afterAll(() => {
    expect(litterOf(address)).toEqual([]);
    TestDaemon.forget(address);
    rmSync(folder, { recursive: true, force: true });
  });

  /** The daemon notes what it has synced of images, some seconds after it came. */
  function imagesAreSynced(): Promise<void> {
    const layers = disk.path('overlay2/layers');
    const fresh = disk.path('image/content/fresh.json');
    const isSynced = (name: string): boolean =>
      readFileSync(join(layers, name, 'layer.json'), 'utf8').includes('"synced":true');
    return until(
      () =>
        readdirSync(layers).every(isSynced) &&
        (!existsSync(fresh) || readFileSync(fresh, 'utf8').includes('"digests":[]')),
      'images are on the disk',
    );
  }

  /** Runs a program on the disk, in another run of the machine. */
  const onDisk = (image: string): string[] => {
    const boot = join(folder, 'boot-id');
    writeFileSync(boot, 'another');
    const script =
      'mount --bind "$1" /proc/sys/kernel/random/boot_id && mount -o loop "$2" "$3" && shift 3 && exec "$@"';
    return ['unshare', '--mount', 'sh', '-c', script, 'sh', boot, image, address.dataRoot];
  };

  const points = Array.from({ length: CUTS }, (_, index) => index);
  it.each(points)('cut %i: what was promised is there, and nothing is damaged', async (index) => {
    // Every other time just after an answer, with nothing that was not flushed: the hardest for what was promised.
    const step = below(rng, STEPS.length + 1);
    const isAfterAnswer = index % 2 === 0;
    const { asked, answered } = times[step] ?? { asked: settled, answered: settled };
    const time = isAfterAnswer ? answered : asked + below(rng, answered - asked + 1);
    const share = isAfterAnswer ? 0 : uniform(rng);
    const at = `cut ${index} in ${(STEPS[step]?.command ?? ['the end']).join(' ')}, ${time - start} of ${settled - start}, ${share} of the rest`;
    const image = join(folder, 'image');
    disk.cut(time, share, rng, image);
    tally('cuts');

    rmSync(join(dirname(address.dataRoot), 'exec'), { recursive: true, force: true });
    expect(await fsckOf(image), at).toMatchObject({ damage: [] });
    const daemon = await TestDaemon.launch(address, ['--shutdown-timeout', '0'], { wrapper: onDisk(image) });
    try {
      const whole = async (command: string[], output: string, mayBeGone: boolean): Promise<void> => {
        const { code, stdout, stderr } = await daemon.run(command);
        if (mayBeGone && code !== 0)
          expect(stderr, `${at}: ${command}`).toMatch(/no such|not found|unable to find image/i);
        else {
          expect(`${stdout}${stderr}`.trim(), `${at}: ${command}`).toContain(output);
          expect(code, `${at}: ${command}`).toBe(0);
        }
      };
      for (const [position, { shown, isDurable }] of STEPS.entries()) {
        const done = times[position]!.answered <= time;
        if (shown) await whole(...shown, !(done && isDurable) && time < settled);
      }
      const firstRemoval = STEPS.length - REMOVED.length;
      for (const [position, shown] of REMOVED.entries())
        await whole(...shown, times[firstRemoval + position]!.asked < time);
    } finally {
      await daemon.stop();
    }
    expect(await fsckOf(image), at).toMatchObject({ damage: [], leftovers: [] });
  });

  /** What fsck says of the disk, before anybody has mended anything. */
  async function fsckOf(image: string): Promise<unknown> {
    const [program, ...args] = [
      ...onDisk(image),
      process.execPath,
      compiledEntry('daemon/bin'),
      'fsck',
      ...['--format', 'json', '--data-root', address.dataRoot],
    ];
    const { stdout, stderr }: Finished = await finish(spawn(program!, args));
    expect(stderr).toBe('');
    return JSON.parse(stdout);
  }
});
