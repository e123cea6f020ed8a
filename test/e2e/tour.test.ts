import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { consoleSteps, outputPattern } from '../support/e2e/console-block.ts';
import { finish } from '../support/e2e/daemon.ts';
import { describeE2e, sharedDocker } from '../support/e2e/session.ts';

const readme = new URL('../../README.md', import.meta.url);

describeE2e('the README', () => {
  it('its tour prints what it says, step by step', async () => {
    const docker = sharedDocker();
    const folder = mkdtempSync(join(tmpdir(), 'drydock-tour-'));
    try {
      const steps = consoleSteps(readFileSync(readme, 'utf8'), 'A 30-second tour');
      expect(steps.length).toBeGreaterThan(4);
      for (const { command, output } of steps) {
        const ran = await finish(
          spawn('bash', ['-c', command], { cwd: folder, env: docker.environment(), stdio: 'pipe' }),
        );
        expect(`${ran.stdout}${ran.stderr}`, `$ ${command}`).toMatch(outputPattern(output));
      }
    } finally {
      await docker.removeAll();
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
