import { execFile } from 'node:child_process';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { below, type Rng, seededRng } from '#common/rng';
import { type BridgePair, bridgePair, failure } from '../support/bridge.ts';
import * as posix from '../support/posix.ts';
import { lacking } from '../support/requirements.ts';

const SEED = Number(process.env.DRYDOCK_SEED ?? Date.now() & 0xffffff);
const STEPS = Number(process.env.DRYDOCK_STEPS ?? 400);
const FILE_MAX = 256 << 10;
const MAP_BYTES = 64 << 10;

/** Random operations on one file, as fsx does, checked against bytes in memory after each. */
class FileModel {
  readonly #path: string;
  readonly #hostPath: string;
  readonly #rng: Rng;
  #fd: number;
  #model = Buffer.alloc(0);
  #step = 0;

  constructor(path: string, hostPath: string, rng: Rng) {
    this.#path = path;
    this.#hostPath = hostPath;
    this.#rng = rng;
    this.#fd = fs.openSync(path, 'w+');
  }

  run(steps: number): void {
    const operations = [
      () => this.#write(),
      () => this.#write(),
      () => this.#read(),
      () => this.#read(),
      () => this.#truncate(),
      () => this.#punch(),
      () => this.#copy(),
      () => this.#map(),
      () => this.#reopen(),
    ];
    for (; this.#step < steps; this.#step++) {
      const which = below(this.#rng, operations.length);
      operations[which]!();
      expect(fs.fstatSync(this.#fd).size, `size after step ${this.#step} (${which}), seed ${SEED}`).toBe(
        this.#model.length,
      );
    }
    fs.closeSync(this.#fd);
    expect(fs.readFileSync(this.#hostPath).equals(this.#model), `host's content, seed ${SEED}`).toBe(true);
  }

  #grow(size: number): void {
    if (size > this.#model.length)
      this.#model = Buffer.concat([this.#model, Buffer.alloc(size - this.#model.length)]);
  }

  #write(): void {
    const at = below(this.#rng, FILE_MAX);
    const bytes = Buffer.from(this.#rng.fill(new Uint8Array(1 + below(this.#rng, 20_000))));
    fs.writeSync(this.#fd, bytes, 0, bytes.length, at);
    this.#grow(at + bytes.length);
    bytes.copy(this.#model, at);
  }

  #read(): void {
    const at = below(this.#rng, FILE_MAX);
    const bytes = Buffer.alloc(1 + below(this.#rng, 40_000));
    const count = fs.readSync(this.#fd, bytes, 0, bytes.length, at);
    const right = this.#model.subarray(at, at + bytes.length);
    expect(bytes.subarray(0, count).equals(right), `read at step ${this.#step}, seed ${SEED}`).toBe(true);
  }

  #truncate(): void {
    const size = below(this.#rng, FILE_MAX);
    fs.ftruncateSync(this.#fd, size);
    this.#grow(size);
    this.#model = this.#model.subarray(0, size);
  }

  #punch(): void {
    const at = below(this.#rng, FILE_MAX);
    const size = 1 + below(this.#rng, 30_000);
    expect(posix.outcome(posix.fallocate(this.#fd, 3, at, size))).toBe('ok');
    this.#model = Buffer.from(this.#model);
    this.#model.fill(0, Math.min(at, this.#model.length), Math.min(at + size, this.#model.length));
  }

  #copy(): void {
    const size = below(this.#rng, 20_000);
    const from = below(this.#rng, FILE_MAX / 4);
    const to = FILE_MAX / 2 + below(this.#rng, FILE_MAX / 4);
    const count = posix.copyRange(this.#fd, from, this.#fd, to, size);
    const bytes = Buffer.from(this.#model.subarray(from, from + size));
    expect(count, `copied at step ${this.#step}, seed ${SEED}`).toBe(bytes.length);
    if (count === 0) return;
    this.#grow(to + bytes.length);
    bytes.copy(this.#model, to);
  }

  #map(): void {
    if (this.#model.length < MAP_BYTES) return;
    const mapping = new posix.Mapping(this.#fd, MAP_BYTES);
    const at = below(this.#rng, MAP_BYTES - 5000);
    expect(mapping.read(at, 4000), `map read at step ${this.#step}, seed ${SEED}`).toBe(
      this.#model.toString('latin1', at, at + 4000),
    );
    const bytes = Buffer.from(this.#rng.fill(new Uint8Array(1 + below(this.#rng, 5000))));
    mapping.write(at, bytes.toString('latin1'));
    if (below(this.#rng, 2) === 0) mapping.sync();
    mapping.close();
    this.#model = Buffer.from(this.#model);
    bytes.copy(this.#model, at);
  }

  #reopen(): void {
    fs.closeSync(this.#fd);
    this.#fd = fs.openSync(this.#path, 'r+');
  }
}

/** Random operations on names, done on a native folder too; both trees must answer and end alike, as fsstress's. */
function shuffleNames(rng: Rng, native: string, guest: string, steps: number): void {
  const names = ['a', 'b', 'c', 'd/a', 'd/b', 'd/e', 'd', 'e', 'e/a', 'e/f', 'e/f/a'];
  const pick = (): string => names[below(rng, names.length)]!;
  const operations: ((root: string, one: string, two: string) => unknown)[] = [
    (root, one) => fs.mkdirSync(join(root, one)),
    (root, one) => fs.writeFileSync(join(root, one), one, { flag: 'a' }),
    (root, one, two) => fs.renameSync(join(root, one), join(root, two)),
    (root, one, two) => posix.rename2(join(root, one), join(root, two), 2),
    (root, one, two) => posix.rename2(join(root, one), join(root, two), 1),
    (root, one, two) => fs.linkSync(join(root, one), join(root, two)),
    (root, one, two) => fs.symlinkSync(one, join(root, two)),
    (root, one) => fs.unlinkSync(join(root, one)),
    (root, one) => fs.rmdirSync(join(root, one)),
    (root, one) => fs.chmodSync(join(root, one), 0o700),
    (root, one) => fs.readdirSync(join(root, one)).sort().join(),
    (root, one) => fs.readFileSync(join(root, one), 'utf8'),
  ];
  for (let step = 0; step < steps; step++) {
    const run = operations[below(rng, operations.length)]!;
    const [one, two] = [pick(), pick()];
    const answers = [native, guest].map((root) => {
      let value: unknown;
      const error = failure(() => {
        value = run(root, one, two);
      });
      return `${error} ${value ?? ''}`;
    });
    expect(answers[1], `step ${step}: ${run} ${one} ${two}, seed ${SEED}`).toBe(answers[0]);
  }
  expect(tree(guest)).toEqual(tree(native));
}

const RACERS = 4;
/** Works on the same few names as its likes. What one of them has just done may be in its way; anything else is a fault. */
const RACER = `const fs = require('fs'), [folder, seed, steps] = process.argv.slice(1);
process.chdir(folder);
let state = Number(seed);
const pick = (list) => list[(state = (state * 1103515245 + 12345) & 0x7fffffff) % list.length];
const names = ['a', 'b', 'c', 'a/x', 'b/x', 'c/y'];
const works = [
  () => fs.mkdirSync(pick(names)), () => fs.writeFileSync(pick(names), pick(names)), () => fs.readFileSync(pick(names)),
  () => fs.renameSync(pick(names), pick(names)), () => fs.linkSync(pick(names), pick(names)),
  () => fs.symlinkSync(pick(names), pick(names)), () => fs.unlinkSync(pick(names)), () => fs.rmdirSync(pick(names)),
  () => fs.readdirSync(pick(names)).map((name) => fs.lstatSync(name)), () => fs.truncateSync(pick(names), 9),
];
for (let n = 0; n < Number(steps); n++)
  try { pick(works)(); } catch ({ code, syscall }) {
    if (!/^(ENOENT|EEXIST|ENOTEMPTY|EISDIR|ENOTDIR|EINVAL|ELOOP|EPERM|EBUSY)$/.test(code)) throw new Error(syscall + ' ' + code);
  }`;

/** What is in a folder, as it is named and as it is. */
function tree(root: string): string[] {
  return (fs.readdirSync(root, { recursive: true }) as string[]).sort().map((name) => {
    const stat = fs.lstatSync(join(root, name));
    return `${name} ${stat.mode.toString(8)} ${stat.nlink} ${stat.isFile() ? stat.size : ''}`;
  });
}

describe.skipIf(lacking('root', '/dev/fuse')).each([
  { consistency: 'consistent', passthrough: true },
  { consistency: 'consistent', passthrough: false },
  { consistency: 'cached', passthrough: false },
  { consistency: 'delegated', passthrough: false },
] as const)('random operations, $consistency, passthrough $passthrough', (mode) => {
  async function withPair(body: (pair: BridgePair) => void | Promise<void>): Promise<void> {
    const pair = await bridgePair(mode);
    try {
      await body(pair);
      expect(pair.trouble).toEqual([]);
    } finally {
      await pair.remove();
    }
  }

  it('on the data of a file keep it as a model says', async () => {
    await withPair(({ guest, host }) => new FileModel(guest('f'), host('f'), seededRng(SEED)).run(STEPS));
  });

  it('of several processes at once on the same names meet no fault, and mount and host end the same', async () => {
    await withPair(async ({ guest, host }) => {
      const run = promisify(execFile);
      const racers = Array.from({ length: RACERS }, (_, n) =>
        run(process.execPath, ['-e', RACER, '--', guest(''), String(SEED + n), String(STEPS)]),
      );
      await Promise.all(racers);
      expect(tree(guest('')), `seed ${SEED}`).toEqual(tree(host('')));
    });
  });

  it('on names end as on a native folder', async () => {
    await withPair(({ guest, host }) => {
      const native = `${host('')}-native`;
      fs.mkdirSync(native);
      shuffleNames(seededRng(SEED), native, guest(''), STEPS);
    });
  });
});
