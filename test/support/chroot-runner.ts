/** The builder without a container runtime: commands run by chroot(1) in the mounted root, and have no mounts. */
import { execFileSync, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { systemClock } from '#common/clock';
import type { StepRunner } from '../../daemon/build/runner.ts';
import { Builds } from '../../daemon/build/service.ts';
import type { TestImages } from './images.ts';
import { findProgram } from './requirements.ts';

/** @param shared folders of the host that commands see in the root, by their name there */
export function chrootRunner(store: TestImages, shared: Record<string, string> = {}): StepRunner {
  return {
    async start({ imageId, config, command, env, points, signal }, output) {
      if (points.length > 0) throw new Error('chroot(1) makes no mounts');
      const containerId = randomUUID();
      await store.roots.create(containerId, imageId);
      const root = await store.roots.mount(containerId);
      for (const [folder, name] of Object.entries(shared)) {
        mkdirSync(`${root}/${name}`);
        execFileSync('mount', ['--bind', folder, `${root}/${name}`]);
      }
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
      return {
        containerId,
        exited,
        cleanMountPlaces: async () => {},
        remove: () => store.roots.remove(containerId),
      };
    },
  };
}

/** The builds of a store, not opened yet. */
export function buildsOver({ images, roots, dataRoot }: TestImages): Builds {
  const [scratch, secrets, cache] = ['build', 'build-secrets', 'build-cache'].map(
    (name) => `${dataRoot}/${name}`,
  );
  return new Builds(images, roots, { scratch: scratch!, secrets: secrets!, cache: cache! }, systemClock);
}
