/**
 * Some hundred requests, good and bad and in several versions of the API, to our daemon and to Debian's dockerd: the same status, the
 * same JSON with the same values, the same texts, but for what test/support/differential/explained.ts gives a reason for.
 */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ask, compare, type Difference } from '../support/differential/compare.ts';
import { explanationOf } from '../support/differential/explained.ts';
import { GROUPS, IMAGE, toolsLayer } from '../support/differential/requests.ts';
import { Dockerd } from '../support/dockerd.ts';
import { TestDaemon } from '../support/e2e/daemon.ts';
import { E2E_NEEDS } from '../support/e2e/shared-daemon.ts';
import { dockerArchive } from '../support/images.ts';
import { lacking } from '../support/requirements.ts';

describe.skipIf(lacking(...E2E_NEEDS, 'dockerd', '/bin/busybox'))('beside Debian’s dockerd', () => {
  let ours: TestDaemon;
  let theirs: Dockerd;

  beforeAll(async () => {
    theirs = new Dockerd({ bridge: true });
    ours = await TestDaemon.launch();
    await ours.ok(['rmi', 'drydock/host']);
    await theirs.ready();
    const layer = toolsLayer(readFileSync('/bin/busybox'));
    const body = dockerArchive([layer], {
      names: [IMAGE],
      config: { Env: ['PATH=/bin'], Cmd: ['sh'] },
    });
    for (const socket of [ours.address.socketPath, theirs.socket])
      expect((await ask(socket, { method: 'POST', path: '/images/load', body })).status).toBe(200);
  });
  afterAll(async () => {
    await Promise.all([ours?.stop(), theirs?.close()]);
    if (ours) TestDaemon.forget(ours.address);
  });

  it.each(Object.entries(GROUPS))('%s: every difference is explained', async (_, steps) => {
    const unexplained: Difference[] = [];
    for (const step of steps) {
      const [mine, other] = await Promise.all([ask(ours.address.socketPath, step), ask(theirs.socket, step)]);
      unexplained.push(...compare(step, mine, other).filter((difference) => !explanationOf(difference)));
    }
    expect(unexplained).toEqual([]);
  });
});
