import * as fs from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type BridgePair, bridgePair } from '../support/bridge.ts';
import { cases } from '../support/posix-matrix.ts';
import { lacking } from '../support/requirements.ts';

/** All of them take minutes: a run does every 131st, and all with DRYDOCK_POSIX_PARTS=1. */
const PARTS = Number(process.env.DRYDOCK_POSIX_PARTS ?? 131);
const PART = Number(process.env.DRYDOCK_POSIX_PART ?? 0);

describe.skipIf(lacking('root', '/dev/fuse')).each([
  { consistency: 'consistent', passthrough: true },
  { consistency: 'cached', passthrough: false },
] as const)('POSIX on a mount, $consistency, passthrough $passthrough', (mode) => {
  let pair: BridgePair;
  let umask: number;
  beforeAll(async () => {
    umask = process.umask(0o022);
    pair = await bridgePair({ ...mode, devices: true });
    fs.chmodSync(pair.host(''), 0o755);
  });
  afterAll(async () => {
    process.umask(umask);
    await pair?.remove();
    expect(pair?.trouble).toEqual([]);
  });

  it('every operation ends as on a native folder, and leaves the same behind', { timeout: 600_000 }, () => {
    const native = `${pair.host('')}-native`;
    fs.mkdirSync(native);
    const all = cases(PART, PARTS);
    expect(all.length).toBeGreaterThan(28_000 / PARTS);
    const wrong: object[] = [];
    let worked = 0;
    for (const { name, run } of all) {
      const right = run(native);
      const ours = run(pair.guest(''));
      if (right.outcome.startsWith('ok')) worked++;
      if (right.outcome !== ours.outcome || right.after.join('\n') !== ours.after.join('\n'))
        wrong.push({
          name,
          right: right.outcome,
          ours: ours.outcome,
          missing: right.after.filter((line) => !ours.after.includes(line)),
          extra: ours.after.filter((line) => !right.after.includes(line)),
        });
    }
    fs.rmSync(join(native), { recursive: true });
    // The matrix is no use if nothing works or nothing fails.
    expect(worked).toBeGreaterThan(all.length / 5);
    expect(worked).toBeLessThan(all.length * 0.8);
    expect(wrong.slice(0, 20)).toEqual([]);
  });
});
