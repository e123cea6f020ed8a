/** Builds: receives contexts, keeps their folders, and runs {@link Builder}s over the image store. */
import { createWriteStream } from 'node:fs';
import { mkdir, mkdtemp, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { DrydockError } from '#common/errors';
import { storageError } from '../image/content.ts';
import { LAYER_BYTES_MAX } from '../image/extract.ts';
import type { Images } from '../image/images.ts';
import { detectBlob } from '../image/layers.ts';
import type { Roots } from '../image/roots.ts';
import type { Progress } from '../image/store.ts';
import { isZeroBlock, parseHeader } from '../image/tar/header.ts';
import { Builder, type BuildObserver, type BuildOptions, type CredentialsFor } from './builder.ts';
import { ignoreMatcher } from './ignore.ts';
import type { StepRunner } from './runner.ts';
import { cleanPath, Tree } from './sources.ts';

/** A build as a client asks for it. */
export interface BuildRequest {
  options: Omit<BuildOptions, 'dockerfile' | 'contextPath'>;
  /** Where context and Dockerfile come from; the folder is the build's own, and goes with it. */
  source: (scratchPath: string) => Promise<BuildSource>;
  runner: StepRunner;
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

/** See the module's head. */
export class Builds {
  readonly #images: Images;
  readonly #roots: Roots;
  readonly #folder: string;

  /** @param folder where the files of builds are while they run; what is in it now is of a daemon that was killed. */
  constructor(images: Images, roots: Roots, folder: string) {
    this.#images = images;
    this.#roots = roots;
    this.#folder = folder;
  }

  async open(): Promise<void> {
    await rm(this.#folder, { recursive: true, force: true });
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
  }

  /** Builds an image and returns its id. @throws DrydockError ERR_BAD_DOCKERFILE, ERR_BUILD, ERR_BUILD_RUN and others */
  async build({ options, source, ...rest }: BuildRequest): Promise<string> {
    const scratchPath = await mkdtemp(join(this.#folder, 'build-'));
    try {
      const { contextPath, dockerfile } = await source(scratchPath);
      const parts = { images: this.#images, roots: this.#roots, scratchPath, ...rest };
      return await new Builder({ ...options, dockerfile, contextPath }, parts).run();
    } catch (error) {
      throw storageError(error);
    } finally {
      await rm(scratchPath, { recursive: true, force: true });
    }
  }

  /** Removes the images that only the cache needs. As `docker builder prune`. */
  async prune(
    users: Parameters<Images['prune']>[1],
  ): Promise<{ CachesDeleted: string[]; SpaceReclaimed: number }> {
    const { library } = this.#images;
    const { removed, reclaimedBytes } = await this.#images.prune(
      (image) =>
        image.tags.length + image.digests.length === 0 &&
        library.parts.records.get(image.id)?.cacheKey !== undefined,
      users,
    );
    const deleted = removed.flatMap((each) => ('Deleted' in each ? [each.Deleted] : []));
    return { CachesDeleted: deleted, SpaceReclaimed: reclaimedBytes };
  }

  /**
   * Takes context and Dockerfile from what a client sends.
   * @param context a tar archive, compressed or not, or a lone Dockerfile @param dockerfile path in the context
   */
  async receive(context: Readable, dockerfile: string, scratchPath: string): Promise<BuildSource> {
    const archivePath = join(scratchPath, 'context.tar');
    await pipeline(context, createWriteStream(archivePath));
    const contextPath = await this.unpack(archivePath, join(scratchPath, 'context'));
    return { contextPath, dockerfile: await readDockerfile(contextPath, dockerfile) };
  }

  /** Unpacks an archive, which is removed, into a new folder. */
  async unpack(archivePath: string, contextPath: string): Promise<string> {
    await mkdir(contextPath, { mode: 0o755 });
    const compression = await detectBlob(archivePath);
    if (compression === 'none' && (await isDockerfile(archivePath))) {
      await rename(archivePath, join(contextPath, 'Dockerfile'));
      return contextPath;
    }
    await this.#images.library.parts.workers.unpack({
      blobPath: archivePath,
      compression,
      targetPath: contextPath,
      whiteouts: 'none',
      bytesMax: LAYER_BYTES_MAX,
      prefix: '',
    });
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

/** The Dockerfile's text. What .dockerignore names of the two files is then taken out of the context. */
async function readDockerfile(contextPath: string, name: string): Promise<string> {
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
