/**
 * COPY, ADD and WORKDIR: files put into a root of the image so far, and what has changed there taken as a layer.
 * First the sources are found and hashed, for the cache; only when the step is not there are they copied.
 */
import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, open, rm, utimes, writeFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import type { ReadableStream } from 'node:stream/web';
import { DrydockError } from '#common/errors';
import type { ByteString } from '#common/native/layer-fs';
import { type Compression, decompressor } from '../image/compression.ts';
import { LAYER_BYTES_MAX } from '../image/extract.ts';
import type { CopyItem } from '../image/file-worker.ts';
import type { Images } from '../image/images.ts';
import { detectBlob } from '../image/layers.ts';
import type { Lease } from '../image/library.ts';
import type { LayerRecord } from '../image/records.ts';
import type { Roots } from '../image/roots.ts';
import { BLOCK, isZeroBlock, parseHeader } from '../image/tar/header.ts';
import type { Heredoc } from './dockerfile.ts';
import { cleanPath, type FoundSource, parseOwner, planCopy, Tree } from './sources.ts';

/** The image so far, and what a step needs to make a layer on it. */
export interface CopyParts {
  images: Images;
  roots: Roots;
  layers: readonly LayerRecord[];
  lease: Lease;
}

/** What COPY or ADD asks for; all words are expanded. */
export interface CopyRequest {
  instruction: 'COPY' | 'ADD';
  sources: string[];
  heredocs: Heredoc[];
  /** Absolute; a slash at its end counts. */
  destination: string;
  chown: string | undefined;
  chmod: string | undefined;
  contextPath: string;
  /** The layers of COPY --from, instead of the context. */
  from: readonly LayerRecord[] | undefined;
  /** A folder of this step's own, which need not exist. */
  scratchPath: string;
  signal: AbortSignal;
}

/** A copy whose sources were found. */
export interface PreparedCopy {
  /** `file:`, `dir:` or `multi:` and a digest of the content, as docker's history shows it. */
  hash: string;
  produce(): Promise<LayerRecord>;
  dispose(): Promise<void>;
}

/** An archive that ADD unpacks. */
interface Archive {
  path: ByteString;
  compression: Compression;
}

const latin1 = (text: string): ByteString => Buffer.from(text).toString('latin1');
const isUrl = (text: string): boolean => /^https?:\/\//i.test(text);

/** Runs `work` with a mounted root over layers, which is gone afterwards. */
async function withRoot<T>(
  { roots }: Pick<CopyParts, 'roots'>,
  layers: readonly LayerRecord[],
  work: (root: string, id: string) => Promise<T>,
): Promise<T> {
  const id = `build-${randomUUID()}`;
  await roots.createOn(id, '', layers);
  try {
    return await work(await roots.mount(id), id);
  } finally {
    await roots.remove(id);
  }
}

/** The layer of WORKDIR: undefined when the folder is there already. */
export async function folderLayer(parts: CopyParts, path: string): Promise<LayerRecord | undefined> {
  const { images, roots, layers, lease } = parts;
  return withRoot(parts, layers, async (root, id) => {
    const tree = new Tree(root);
    const folder = latin1(cleanPath(path));
    try {
      if (tree.isDirectory(folder)) return undefined;
    } finally {
      tree.close();
    }
    const job = {
      items: [],
      folders: [folder],
      targetPath: root,
      owner: { uid: 0, gid: 0 },
      mode: undefined,
    };
    await images.library.parts.workers.copy(job);
    return images.library.addLayer(roots.pack(id), lease);
  });
}

/** Finds and hashes the sources. dispose() must be called in the end. @throws DrydockError ERR_BUILD, ERR_DOWNLOAD */
export async function prepareCopy(parts: CopyParts, request: CopyRequest): Promise<PreparedCopy> {
  const { images, roots } = parts;
  await mkdir(request.scratchPath, { recursive: true });
  let fromId: string | undefined;
  const dispose = async (): Promise<void> => {
    if (fromId !== undefined) await roots.remove(fromId);
    await rm(request.scratchPath, { recursive: true, force: true });
  };
  try {
    let sourceRoot = request.contextPath;
    if (request.from) {
      fromId = `build-${randomUUID()}`;
      await roots.createOn(fromId, '', request.from);
      sourceRoot = await roots.mount(fromId);
    }
    const { files, archives } = await findSources(sourceRoot, request);
    const items = files.map(({ path, name, isDirectory }) => ({
      source: path,
      target: isDirectory ? '' : name,
    }));
    const all: CopyItem[] = [...items, ...archives.map(({ path }) => ({ source: path, target: '' }))];
    const digest = await images.library.parts.workers.hash({ items: all });
    const kind = all.length > 1 ? 'multi' : files[0]?.isDirectory ? 'dir' : 'file';
    return { hash: `${kind}:${digest}`, produce: () => produce(parts, request, files, archives), dispose };
  } catch (error) {
    await dispose();
    throw buildError(request, error);
  }
}

/** Says which instruction failed, as docker does. */
function buildError({ instruction }: CopyRequest, error: unknown): unknown {
  if (!(error instanceof DrydockError) || !['ERR_BUILD', 'ERR_BAD_ARCHIVE'].includes(error.code))
    return error;
  // What the extractor says of an archive is here said of files.
  const message = error.message.replace(/^invalid tar archive: (.*)\. Nothing of it was kept.*$/s, '$1');
  return new DrydockError('ERR_BUILD', `${instruction} failed: ${message}`, { cause: error });
}

async function produce(
  parts: CopyParts,
  request: CopyRequest,
  files: readonly FoundSource[],
  archives: readonly Archive[],
): Promise<LayerRecord> {
  const { images, roots, layers, lease } = parts;
  const { workers } = images.library.parts;
  return withRoot(parts, layers, async (root, id) => {
    const tree = new Tree(root);
    try {
      const owner =
        request.chown === undefined
          ? { uid: 0, gid: 0 }
          : parseOwner(request.chown, (path) => readText(tree, path));
      const { items, folders } = planCopy(tree, files, request.destination);
      if (request.destination.endsWith('/') || archives.length > 0)
        folders.push(latin1(cleanPath(request.destination)));
      await workers.copy({ items, folders, targetPath: root, owner, mode: parseMode(request.chmod) });
      for (const { path, compression } of archives)
        await workers.unpack({
          blobPath: Buffer.from(path, 'latin1').toString('utf8'),
          compression,
          targetPath: root,
          whiteouts: 'none',
          bytesMax: LAYER_BYTES_MAX,
          prefix: latin1(cleanPath(request.destination)),
        });
      return await images.library.addLayer(roots.pack(id), lease);
    } catch (error) {
      throw buildError(request, error);
    } finally {
      tree.close();
    }
  });
}

/** A small text file of the image, such as /etc/passwd; empty when it is not there. */
function readText(tree: Tree, path: string): string {
  const real = tree.resolve(latin1(path.slice(1)));
  return real === undefined ? '' : readFileSync(Buffer.from(real, 'latin1'), 'utf8');
}

function parseMode(chmod: string | undefined): number | undefined {
  if (chmod === undefined) return undefined;
  if (!/^[0-7]{3,4}$/.test(chmod))
    throw new DrydockError('ERR_BUILD', `--chmod=${chmod} is not an octal mode`);
  return Number.parseInt(chmod, 8);
}

async function findSources(
  sourceRoot: string,
  request: CopyRequest,
): Promise<{ files: FoundSource[]; archives: Archive[] }> {
  const files: FoundSource[] = [];
  const archives: Archive[] = [];
  const tree = new Tree(sourceRoot);
  try {
    for (const source of request.sources) {
      const heredoc = request.heredocs.find(
        ({ name }) => source.replace(/^<<-?/, '').replace(/["']/g, '') === name && source.startsWith('<<'),
      );
      if (heredoc) files.push(await writeHeredoc(request.scratchPath, heredoc));
      else if (request.instruction === 'ADD' && isUrl(source)) files.push(await download(source, request));
      else
        for (const found of tree.find(source)) {
          const archive =
            request.instruction === 'ADD' && !found.isDirectory ? await archiveOf(found.path) : undefined;
          if (archive) archives.push(archive);
          else files.push(found);
        }
    }
  } finally {
    tree.close();
  }
  return { files, archives };
}

async function writeHeredoc(scratchPath: string, { name, content }: Heredoc): Promise<FoundSource> {
  const path = `${scratchPath}/${name}`;
  await writeFile(path, content, { mode: 0o644 });
  return { path: latin1(path), name: latin1(name), isDirectory: false };
}

/** ADD of a URL: a file with mode 0600 and the server's time, named as the URL is. */
async function download(source: string, request: CopyRequest): Promise<FoundSource> {
  const url = new URL(source);
  const name = decodeURIComponent(url.pathname.split('/').at(-1)!).replaceAll('/', '');
  if (request.destination.endsWith('/') && name === '')
    throw new DrydockError('ERR_BUILD', `cannot determine filename from url: ${source}`);
  const answer = await fetch(url, { signal: request.signal }).catch((error: Error) => {
    throw new DrydockError(
      'ERR_DOWNLOAD',
      `${request.instruction} failed: Get ${JSON.stringify(source)}: ${String(error.cause ?? error.message)}`,
    );
  });
  if (!answer.ok || !answer.body)
    throw new DrydockError(
      'ERR_DOWNLOAD',
      `${request.instruction} failed: failed to GET ${source} with status ${answer.status} ${answer.statusText}`,
    );
  const path = `${request.scratchPath}/download`;
  const handle = await open(path, 'wx', 0o600);
  try {
    let length = 0;
    for await (const chunk of Readable.fromWeb(answer.body as ReadableStream)) {
      length += (chunk as Buffer).length;
      if (length > LAYER_BYTES_MAX)
        throw new DrydockError('ERR_DOWNLOAD', `${source} has more than ${LAYER_BYTES_MAX} bytes`);
      await handle.write(chunk as Buffer);
    }
  } finally {
    await handle.close();
  }
  const modifiedMs = Date.parse(answer.headers.get('last-modified') ?? '');
  // Without a time of the server's, docker gives the file the epoch.
  const seconds = Number.isNaN(modifiedMs) ? 0 : modifiedMs / 1000;
  await utimes(path, seconds, seconds);
  return { path: latin1(path), name: latin1(name || 'download'), isDirectory: false };
}

/** Whether a file is a tar archive, compressed or not, which is what ADD unpacks: told by its first block. */
async function archiveOf(path: ByteString): Promise<Archive | undefined> {
  const name = Buffer.from(path, 'latin1').toString('utf8');
  if (!existsSync(name)) return undefined;
  const compression = await detectBlob(name);
  const handle = await open(name, 'r');
  try {
    const source = handle.createReadStream({ end: 1 << 20, autoClose: false });
    const transform = decompressor(compression);
    let head: Buffer = Buffer.alloc(0);
    const stream = transform ? source.pipe(transform) : source;
    try {
      for await (const chunk of stream as AsyncIterable<Buffer>) {
        head = Buffer.concat([head, chunk]);
        if (head.length >= BLOCK) break;
      }
    } catch {
      return undefined; // not what its first bytes made us think
    }
    if (head.length < BLOCK) return undefined;
    const block = head.subarray(0, BLOCK);
    return parseHeader(block) || (isZeroBlock(block) && compression === 'none')
      ? { path, compression }
      : undefined;
  } finally {
    await handle.close();
  }
}
