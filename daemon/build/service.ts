/** Builds: receives contexts, keeps their folders, and runs {@link Builder}s over the image store. */
import { createWriteStream } from 'node:fs';
import { mkdir, mkdtemp, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Clock } from '#common/clock';
import { DrydockError } from '#common/errors';
import { storageError } from '../image/content.ts';
import { LAYER_BYTES_MAX } from '../image/extract.ts';
import type { Images } from '../image/images.ts';
import { detectBlob } from '../image/layers.ts';
import type { Roots } from '../image/roots.ts';
import type { Progress } from '../image/store.ts';
import { isZeroBlock, parseHeader } from '../image/tar/header.ts';
import { removeTree } from '../store/remove-tree.ts';
import { Builder } from './builder.ts';
import { CacheMounts } from './cache-mounts.ts';
import { BuildCache } from './cache-usage.ts';
import { expandForeign } from './foreign-archive.ts';
import { ignoreMatcher } from './ignore.ts';
import type { BuildObserver, BuildOptions, CredentialsFor } from './options.ts';
import type { StepClient } from './run-mounts.ts';
import type { StepRunner } from './runner.ts';
import { cleanPath, Tree } from './sources.ts';

/** A build as a client asks for it. */
export interface BuildRequest {
  options: Omit<BuildOptions, 'dockerfile' | 'contextPath'>;
  /** Where context and Dockerfile come from; the folder is the build's own, and goes with it. */
  source: (scratchPath: string) => Promise<BuildSource>;
  runner: StepRunner;
  client?: StepClient;
  credentialsFor: CredentialsFor;
  progress: (line: Progress) => void;
  observer?: BuildObserver;
  signal: AbortSignal;
}

/** What is built. */
export interface BuildSource {
  /** A folder with the context. */
  contextPath: string;
  /** The Dockerfile's text. */
  dockerfile: string;
}

/** Where builds keep their files. */
export interface BuildFolders {
  /** Those of builds that are under way; what is in it at the start is of a daemon that was killed. */
  scratch: string;
  /** Secrets of builds that are under way: better memory than a disk. */
  secrets: string;
  /** What is kept from build to build. */
  cache: string;
}

/** See the module's head. */
export class Builds {
  readonly images: Images;
  readonly roots: Roots;
  readonly cache: BuildCache;
  readonly #folders: BuildFolders;
  readonly #cacheMounts: CacheMounts;
  /** Called whenever the last build that ran has ended. */
  onIdle: () => void = () => {};
  #running = 0;
  /** Images that were built since the start. */
  readonly results: Set<string> = new Set();

  constructor(images: Images, roots: Roots, folders: BuildFolders, clock: Clock) {
    this.images = images;
    this.roots = roots;
    this.#folders = folders;
    this.#cacheMounts = new CacheMounts(folders.cache, () => clock.wallMs());
    this.cache = new BuildCache(images, this.#cacheMounts);
  }

  async open(): Promise<void> {
    for (const folder of [this.#folders.scratch, this.#folders.secrets]) {
      await removeTree(folder);
      await mkdir(folder, { recursive: true, mode: 0o700 });
    }
    await this.#cacheMounts.open();
  }

  /** Runs `work` with a new folder, which is gone afterwards. */
  async withScratch<T>(work: (path: string) => Promise<T>): Promise<T> {
    const path = await mkdtemp(join(this.#folders.scratch, 'build-'));
    try {
      return await work(path);
    } catch (error) {
      throw storageError(error);
    } finally {
      await removeTree(path);
    }
  }

  /** Builds an image and returns its id. @throws DrydockError ERR_BAD_DOCKERFILE, ERR_BUILD, ERR_BUILD_RUN and others */
  async build(request: BuildRequest): Promise<string> {
    this.#running++;
    try {
      const imageId = await this.#build(request);
      this.results.add(imageId);
      return imageId;
    } finally {
      if (--this.#running === 0) this.onIdle();
    }
  }

  #build({ options, source, ...rest }: BuildRequest): Promise<string> {
    return this.withScratch(async (scratchPath) => {
      const { contextPath, dockerfile } = await source(scratchPath);
      const parts = {
        images: this.images,
        roots: this.roots,
        cacheMounts: this.#cacheMounts,
        secretsFolder: this.#folders.secrets,
        scratchPath,
        ...rest,
      };
      return new Builder({ ...options, dockerfile, contextPath }, parts).run();
    });
  }

  /**
   * Takes context and Dockerfile from what a client sends.
   * @param context a tar archive, compressed or not, or a lone Dockerfile @param dockerfile path in the context
   */
  async receive(
    context: Readable,
    dockerfile: string,
    scratchPath: string,
    signal: AbortSignal,
  ): Promise<BuildSource> {
    const contextPath = await this.receiveInto(context, join(scratchPath, 'context'), signal);
    return { contextPath, dockerfile: await readDockerfile(contextPath, dockerfile) };
  }

  /** Takes an archive, or a lone Dockerfile, into a new folder. */
  async receiveInto(context: Readable, contextPath: string, signal: AbortSignal): Promise<string> {
    const archivePath = `${contextPath}.tar`;
    await pipeline(context, createWriteStream(archivePath), { signal });
    return this.unpack(archivePath, contextPath, signal);
  }

  /** Unpacks an archive, which is removed, into a new folder. */
  async unpack(archivePath: string, contextPath: string, signal: AbortSignal): Promise<string> {
    await mkdir(contextPath, { mode: 0o755 });
    const expanded = `${archivePath}.expanded`;
    if (await expandForeign(archivePath, expanded, signal)) await rename(expanded, archivePath);
    const compression = await detectBlob(archivePath);
    if (compression === 'none' && (await isDockerfile(archivePath))) {
      await rename(archivePath, join(contextPath, 'Dockerfile'));
      return contextPath;
    }
    const job = { blobPath: archivePath, compression, targetPath: contextPath, prefix: '' };
    await this.images.library.parts.workers.unpack(
      { ...job, whiteouts: 'none', bytesMax: LAYER_BYTES_MAX },
      signal,
    );
    await rm(archivePath);
    return contextPath;
  }
}

/** Anything that does not begin like a tar archive. */
async function isDockerfile(path: string): Promise<boolean> {
  const head = (await readHead(path, 512)).subarray(0, 512);
  return head.length < 512 || !(parseHeader(head) || isZeroBlock(head));
}

async function readHead(path: string, length: number): Promise<Buffer> {
  const handle = await open(path, 'r');
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}

/**
 * The text of a Dockerfile in a context. What .dockerignore names of the two files is then taken out of the context.
 * @throws ERR_BUILD when it is not there
 */
export async function readDockerfile(contextPath: string, name: string): Promise<string> {
  const tree = new Tree(contextPath);
  let path: string | undefined;
  try {
    path = tree.resolve(Buffer.from(cleanPath(name)).toString('latin1'));
  } finally {
    tree.close();
  }
  if (path === undefined || !(await stat(Buffer.from(path, 'latin1'))).isFile())
    throw new DrydockError('ERR_BUILD', `Cannot locate specified Dockerfile: ${name}`);
  const dockerfile = await readFile(Buffer.from(path, 'latin1'), 'utf8');
  const ignorePath = join(contextPath, '.dockerignore');
  const rules = await readFile(ignorePath, 'utf8').catch(() => '');
  const isIgnored = ignoreMatcher(rules);
  for (const each of [cleanPath(name), '.dockerignore'])
    if (isIgnored(each)) await rm(join(contextPath, each), { force: true });
  return dockerfile;
}
