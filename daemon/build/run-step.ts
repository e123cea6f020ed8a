/** RUN: the command in its container, with its mounts, and what it has changed as a layer. */
import type { Lease } from '../image/library.ts';
import type { LayerRecord } from '../image/records.ts';
import type { ImageConfig } from '../image/store.ts';
import type { RunMount } from './mounts.ts';
import { type BuildOptions, type BuildParts, BuildRunError } from './options.ts';
import { prepareMounts, type RunMountParts } from './run-mounts.ts';

/** A command to run on an image. */
export interface RunStep {
  imageId: string;
  config: ImageConfig;
  command: string[];
  env: string[];
  /** `none`, `host`, or the client's wish for all steps. */
  network: string | undefined;
  mounts: readonly RunMount[];
  mountParts: RunMountParts;
}

/** The build that it is a step of. */
export interface RunStepBuild {
  parts: BuildParts;
  options: BuildOptions;
  lease: Lease;
  say: (text: string) => void;
  output: (text: string) => void;
}

/** Runs a command. @throws BuildRunError when it fails */
export async function runCommand(step: RunStep, build: RunStepBuild): Promise<LayerRecord> {
  const mounts = await prepareMounts(step.mountParts, step.mounts);
  try {
    return await runWith(step, build, mounts);
  } finally {
    await mounts.release();
  }
}

/** BuildKit's steps have all the same hostname, which the client may choose; the classic builder's that of their container. */
function hostnameOf({ mode, buildArgs }: BuildOptions): string | undefined {
  return mode === 'buildkit' ? buildArgs.get('BUILDKIT_SANDBOX_HOSTNAME') || 'buildkitsandbox' : undefined;
}

async function runWith(
  { imageId, config, command, env, network }: RunStep,
  { parts, options, lease, say, output }: RunStepBuild,
  mounts: Awaited<ReturnType<typeof prepareMounts>>,
): Promise<LayerRecord> {
  const { signal, roots } = parts;
  const request = {
    imageId,
    config,
    command,
    env: [...env, ...mounts.env],
    network,
    hostname: hostnameOf(options),
    signal,
    points: mounts.points,
  };
  const running = await parts.runner.start(request, output);
  const name = running.containerId.slice(0, 12);
  say(` ---> Running in ${name}\n`);
  let mustRemove = options.forceRemove;
  try {
    const exitCode = await running.exited;
    if (exitCode !== 0) throw new BuildRunError(command, exitCode);
    await running.cleanMountPlaces();
    const layer = await parts.images.library.makeLayer(
      await roots.packed(running.containerId),
      lease,
      signal,
    );
    mustRemove ||= options.removeContainers;
    return layer;
  } finally {
    // A failed container stays for a look into it, unless its client has gone.
    if (mustRemove || signal.aborted) {
      await running.remove();
      say(` ---> Removed intermediate container ${name}\n`);
    }
  }
}
