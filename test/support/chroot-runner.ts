/** Runs the commands of builds by chroot(1) in the mounted root: for tests of the builder without a container runtime. */
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import type { StepRunner } from '../../daemon/build/runner.ts';
import type { TestImages } from './images.ts';
import { findProgram } from './requirements.ts';

export function chrootRunner(store: TestImages): StepRunner {
  return {
    async start({ imageId, config, command, env, signal }, output) {
      const containerId = randomUUID();
      await store.roots.create(containerId, imageId);
      const root = await store.roots.mount(containerId);
      const inside = ['sh', '-c', 'cd "$0" && exec "$@"', config.WorkingDir || '/', ...command];
      const user = config.User ? [`--userspec=${config.User}`] : [];
      const child = spawn(findProgram('chroot')!, [...user, root, ...inside], {
        env: Object.fromEntries(env.map((entry) => entry.split(/=(.*)/s).slice(0, 2))),
        stdio: ['ignore', 'pipe', 'pipe'],
        signal,
      });
      for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => output(String(chunk)));
      const exited = new Promise<number>((resolve, reject) => {
        child.on('error', reject);
        child.on('close', (code) => resolve(code ?? 137));
      });
      exited.catch(() => {});
      return { containerId, exited, remove: () => store.roots.remove(containerId) };
    },
  };
}
