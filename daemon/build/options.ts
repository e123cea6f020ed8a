/** What a build is asked for, and what it works with. */
import { DrydockError } from '#common/errors';
import type { Images } from '../image/images.ts';
import type { Credentials } from '../image/registry/auth.ts';
import type { Roots } from '../image/roots.ts';
import type { Progress } from '../image/store.ts';
import type { CacheMounts } from './cache-mounts.ts';
import type { Instruction } from './dockerfile.ts';
import type { StepClient } from './run-mounts.ts';
import type { StepRunner } from './runner.ts';

/** What a name in FROM or `--from` stands for, when the client says so (`--build-context`). */
export type NamedContext =
  | { kind: 'image'; reference: string }
  /** A folder of the build's own; it is fetched when it is first needed. */
  | { kind: 'folder'; fetch: () => Promise<string> };

/** What a client wishes. */
export interface BuildOptions {
  dockerfile: string;
  /** The context, unpacked. */
  contextPath: string;
  /** The order of stages: all of them one by one, or only those that are needed, side by side. */
  mode: 'classic' | 'buildkit';
  tags: string[];
  target: string;
  buildArgs: Map<string, string | undefined>;
  labels: Record<string, string>;
  noCache: boolean;
  /** Stages whose steps are done again. */
  noCacheStages: readonly string[];
  pull: boolean;
  cacheFrom: string[];
  platform: string;
  /** Remove the containers of RUN that have succeeded, and also those that have failed. */
  removeContainers: boolean;
  forceRemove: boolean;
  quiet: boolean;
  /** By the name that the Dockerfile uses. */
  namedContexts: ReadonlyMap<string, NamedContext>;
  /** What the client grants to the build: `network.host`. */
  entitlements: ReadonlySet<string>;
}

/** What a build works with. */
export interface BuildParts {
  images: Images;
  roots: Roots;
  runner: StepRunner;
  cacheMounts: CacheMounts;
  /** Gives secrets and agents, when the client can. */
  client?: StepClient;
  /** A folder for files of this build. */
  scratchPath: string;
  /** A folder for what should not reach a disk. */
  secretsFolder: string;
  credentialsFor: CredentialsFor;
  progress: (line: Progress) => void;
  /** Told of steps, by a client that shows them in its own way. */
  observer?: BuildObserver;
  signal: AbortSignal;
}

/** The client's login at a registry. */
export type CredentialsFor = (domain: string) => Credentials | undefined | Promise<Credentials | undefined>;

/** Where a step is in its stage, counting only those that are shown. */
export interface StepPosition {
  /** As in `AS`; `stage-N` for one without a name; empty when it is the only one. */
  stage: string;
  /** From 1. */
  index: number;
  total: number;
}

/** Hears which steps are under way; several may be at a time. */
export interface BuildObserver {
  begin(instruction: Instruction, position: StepPosition): StepSink;
}

/** One step under way. It ends by `end` or by `fail`. */
export interface StepSink {
  /** Output of its command. */
  log(text: string): void;
  /** docker's own progress, as of a pull. */
  status(line: Progress): void;
  /** It was taken from the cache. */
  cached(): void;
  end(): void;
  fail(error: unknown): void;
}

/** A failed RUN: the client ends with the command's exit code. */
export class BuildRunError extends DrydockError {
  readonly command: readonly string[];
  readonly exitCode: number;
  constructor(command: readonly string[], exitCode: number) {
    super('ERR_BUILD_RUN', `The command '${command.join(' ')}' returned a non-zero code: ${exitCode}`);
    this.command = command;
    this.exitCode = exitCode;
  }
}

/** A build without wishes: the last stage, for this machine. */
export const NO_WISHES: Omit<BuildOptions, 'dockerfile' | 'contextPath'> = {
  mode: 'classic',
  tags: [],
  target: '',
  buildArgs: new Map(),
  labels: {},
  noCache: false,
  noCacheStages: [],
  pull: false,
  cacheFrom: [],
  platform: '',
  removeContainers: true,
  forceRemove: true,
  quiet: false,
  namedContexts: new Map(),
  entitlements: new Set(),
};
