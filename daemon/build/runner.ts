/** RUN: a command in a container over the image so far, by the same service as every other container. */
import { StringDecoder } from 'node:string_decoder';
import type { ContainerService } from '../container/service.ts';
import type { HostConfig, MountPoint } from '../container/types.ts';
import type { ImageConfig, RootStore } from '../image/store.ts';
import { MountPlaces } from './run-mounts.ts';

/** A command to run. */
export interface RunRequest {
  imageId: string;
  config: ImageConfig;
  command: string[];
  env: string[];
  /** `none` or `host`; otherwise what the client wishes for all commands. */
  network: string | undefined;
  /** The container's own short id when undefined. */
  hostname: string | undefined;
  /** Further mounts. */
  points: MountPoint[];
  signal: AbortSignal;
}

/** A command that runs. */
export interface RunningStep {
  containerId: string;
  /** Its exit code, when all its output has been given. Rejects when the client has gone; the container is dead then. */
  exited: Promise<number>;
  /** Takes away what was made in its tree only to mount on; when it has ended. */
  cleanMountPlaces(): Promise<void>;
  remove(): Promise<void>;
}

/** Runs the commands of a build. */
export interface StepRunner {
  start(request: RunRequest, output: (text: string) => void): Promise<RunningStep>;
}

/** A runner over the daemon's containers. `hostConfig` is what the client wishes for all RUNs: limits, network. */
export function containerRunner(
  containers: ContainerService,
  roots: RootStore,
  hostConfig: HostConfig,
): StepRunner {
  return {
    async start({ imageId, config, command, env, network, hostname, points, signal }, output) {
      const create = {
        Image: imageId,
        Cmd: command,
        Entrypoint: [],
        Env: env,
        ...(hostname !== undefined && { Hostname: hostname }),
        ...(config.User !== undefined && { User: config.User }),
        ...(config.WorkingDir !== undefined && { WorkingDir: config.WorkingDir }),
        Healthcheck: { Test: ['NONE'] },
        AttachStdout: true,
        AttachStderr: true,
        HostConfig: {
          ...hostConfig,
          ...(network !== undefined && network !== 'default' && { NetworkMode: network }),
          LogConfig: { Type: 'none', Config: {} },
        },
      };
      const { container } = await containers.create('', create, points);
      const remove = (): Promise<void> => containers.remove(container, { force: true, volumes: true });
      const places = new MountPlaces();
      try {
        if (points.length > 0) await places.note(await roots.mount(container.id), points);
      } catch (error) {
        await remove();
        throw error;
      }
      // One per stream: a character may come in two chunks.
      const decoders = { 1: new StringDecoder('utf8'), 2: new StringDecoder('utf8') };
      const drained = new Promise<void>((resolve) => {
        container.io.add({
          write(stream, chunk) {
            output(decoders[stream].write(chunk));
            return true;
          },
          end: resolve,
        });
      });
      const gone = new Promise<never>((_, reject) => {
        // The client may have gone while the container was made.
        if (signal.aborted) reject(signal.reason as Error);
        signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
      });
      const ended = container.wait('next-exit', signal);
      const exited = (async (): Promise<number> => {
        if (!signal.aborted) await containers.supervisor.start(container);
        const { StatusCode } = await Promise.race([ended, gone]);
        await drained;
        return StatusCode;
      })();
      gone.catch(() => {});
      exited.catch(() => {});
      const cleanMountPlaces = async (): Promise<void> => {
        if (points.length === 0) return;
        await roots.mount(container.id);
        await places.clean();
      };
      return { containerId: container.id, exited, cleanMountPlaces, remove };
    },
  };
}
