/**
 * COPY, ADD and WORKDIR: files put into a root of the image so far, and what has changed there taken as a layer.
 * First the sources are found and hashed, for the cache; only when the step is not there are they copied.
 */
import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, open, writeFile } from 'node:fs/promises';
import { DrydockError } from '#common/errors';
import type { ByteString } from '#common/native/layer-fs';
import { type Compression, decompressor } from '../image/compression.ts';
import { LAYER_BYTES_MAX } from '../image/extract.ts';
import type { CopyItem } from '../image/file-worker.ts';
import type { Images } from '../image/images.ts';
import { detectBlob } from '../image/layers.ts';
import type { Lease } from '../image/library.ts';
import { isMode } from '../image/mode.ts';
import type { LayerRecord } from '../image/records.ts';
import type { Roots } from '../image/roots.ts';
import { BLOCK, isZeroBlock, parseHeader } from '../image/tar/header.ts';
import { removeTree } from '../store/remove-tree.ts';
import type { Heredoc } from './dockerfile.ts';
import { download } from './download.ts';
import { expandForeign } from './foreign-archive.ts';
import { fetchGit, parseGitUrl } from './git.ts';
import type { MountFiles } from './run-mounts.ts';
import { withRoot } from './scratch-root.ts';
import { cleanPath, excludedPaths, type FoundSource, parseOwner, planCopy, Tree } from './sources.ts';

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
  /** The layer is made without a look at the image so far. */
  link: boolean;
  /** The folders that lead to a source are made at the destination. */
  parents: boolean;
  /** Patterns of what stays out, relative to a source. */
  excludes: string[];
  /** Of a download: `sha256:` and hexadecimal digits. */
  checksum: string | undefined;
  keepGitDir: boolean;
  /** Whether archives are unpacked: of the context they are, of URLs they are not, unless this says otherwise. */
  unpack: boolean | undefined;
  /** What the sources are in: a folder (the context), or the layers of a stage or image. */
  files: MountFiles;
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

/** The layer of WORKDIR: undefined when the folder is there already. */
export async function folderLayer(parts: CopyParts, path: string): Promise<LayerRecord | undefined> {
  const { images, roots, layers, lease } = parts;
  return withRoot(roots, layers, async (root, id) => {
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
    return images.library.makeLayer(await roots.packed(id), lease);
  });
}

/** Finds and hashes the sources. dispose() must be called in the end. @throws DrydockError ERR_BUILD, ERR_DOWNLOAD */
export async function prepareCopy(parts: CopyParts, request: CopyRequest): Promise<PreparedCopy> {
  const { images, roots } = parts;
  await mkdir(request.scratchPath, { recursive: true });
  let fromId: string | undefined;
  const dispose = async (): Promise<void> => {
    if (fromId !== undefined) await roots.remove(fromId);
    await removeTree(request.scratchPath);
  };
  try {
    let sourceRoot: string;
    if ('folder' in request.files) sourceRoot = request.files.folder;
    else {
      fromId = `build-${randomUUID()}`;
      await roots.createOn(fromId, '', request.files.layers);
      sourceRoot = await roots.mount(fromId);
    }
    const found = await findSources(sourceRoot, request);
    const { files, archives } = found;
    const items = files.map(({ path, name, isDirectory }) => ({
      source: path,
      target: isDirectory && !request.parents ? '' : name,
    }));
    const skip =
      request.excludes.length === 0 ? [] : files.flatMap((each) => excludedPaths(each, request.excludes));
    const all: CopyItem[] = [...items, ...archives.map(({ path }) => ({ source: path, target: '' }))];
    const digest = await images.library.parts.workers.hash({ items: all, skip }, request.signal);
    const kind = all.length > 1 ? 'multi' : files[0]?.isDirectory ? 'dir' : 'file';
    return {
      hash: `${kind}:${digest}`,
      produce: () => produce(parts, request, { files, archives, skip }),
      dispose,
    };
  } catch (error) {
    await dispose();
    throw buildError(request, error);
  }
}

/** Says which instruction failed, as docker does. */
function buildError({ instruction }: Pick<CopyRequest, 'instruction'>, error: unknown): unknown {
  if (!(error instanceof DrydockError) || !['ERR_BUILD', 'ERR_BAD_ARCHIVE'].includes(error.code))
    return error;
  // What the extractor says of an archive is here said of files.
  const message = error.message.replace(/^invalid tar archive: (.*)\. Nothing of it was kept.*$/s, '$1');
  return new DrydockError('ERR_BUILD', `${instruction} failed: ${message}`, { cause: error });
}

/** What a step copies. */
interface Sources {
  files: readonly FoundSource[];
  archives: readonly Archive[];
  /** Paths below them that stay out. */
  skip: readonly ByteString[];
}

async function produce(
  parts: CopyParts,
  request: CopyRequest,
  { files, archives, skip }: Sources,
): Promise<LayerRecord> {
  const { images, roots, lease } = parts;
  const { workers } = images.library.parts;
  // Names of owners are the image's, also for a layer that does not look at it otherwise.
  const owner = await ownerOf(parts, request);
  return withRoot(roots, request.link ? [] : parts.layers, async (root, id) => {
    const tree = new Tree(root);
    try {
      const { items, folders } = planCopy(tree, files, request.destination, request.parents);
      if (request.destination.endsWith('/') || archives.length > 0)
        folders.push(latin1(cleanPath(request.destination)));
      const mode = parseMode(request.chmod);
      await workers.copy({ items, skip, folders, targetPath: root, owner, mode }, request.signal);
      for (const { path, compression } of archives)
        await workers.unpack(
          {
            blobPath: Buffer.from(path, 'latin1').toString('utf8'),
            compression,
            targetPath: root,
            whiteouts: 'none',
            bytesMax: LAYER_BYTES_MAX,
            prefix: latin1(cleanPath(request.destination)),
          },
          request.signal,
        );
      return await images.library.makeLayer(await roots.packed(id), lease, request.signal);
    } catch (error) {
      throw buildError(request, error);
    } finally {
      tree.close();
    }
  });
}

async function ownerOf(
  parts: CopyParts,
  { chown, instruction }: CopyRequest,
): Promise<{ uid: number; gid: number }> {
  if (chown === undefined) return { uid: 0, gid: 0 };
  const numbers = /^(\d+)(?::(\d+))?$/.exec(chown);
  if (numbers) return { uid: Number(numbers[1]), gid: Number(numbers[2] ?? numbers[1]) };
  return withRoot(parts.roots, parts.layers, async (root) => {
    const tree = new Tree(root);
    try {
      return parseOwner(chown, (path) => readText(tree, path));
    } catch (error) {
      throw buildError({ instruction }, error);
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

function parseMode(chmod: string | undefined): string | undefined {
  if (chmod !== undefined && !isMode(chmod))
    throw new DrydockError('ERR_BUILD', `--chmod=${chmod} is neither an octal mode nor a symbolic one`);
  return chmod;
}

async function findSources(
  sourceRoot: string,
  request: CopyRequest,
): Promise<{ files: FoundSource[]; archives: Archive[] }> {
  const files: FoundSource[] = [];
  const archives: Archive[] = [];
  const take = async (found: FoundSource, mayUnpack: boolean): Promise<void> => {
    const archive = mayUnpack && !found.isDirectory ? await archiveOf(found.path, request) : undefined;
    if (archive) archives.push(archive);
    else files.push(found);
  };
  const isAdd = request.instruction === 'ADD';
  const tree = new Tree(sourceRoot);
  try {
    for (const source of request.sources) {
      const git = isAdd ? parseGitUrl(source) : undefined;
      const heredoc = request.heredocs.find(
        ({ name }) => source.replace(/^<<-?/, '').replace(/["']/g, '') === name && source.startsWith('<<'),
      );
      if (request.checksum !== undefined && (git || !isUrl(source)))
        throw new DrydockError('ERR_BUILD', 'checksum can only be given for an HTTP source');
      if (heredoc) files.push(await writeHeredoc(request.scratchPath, heredoc));
      else if (git) {
        const { keepGitDir, signal, scratchPath } = request;
        const path = await fetchGit(git, `${scratchPath}/git-${files.length}`, { keepGitDir, signal });
        files.push({ path: latin1(path), name: '', isDirectory: true });
      } else if (isAdd && isUrl(source)) await take(await download(source, request), request.unpack === true);
      else
        for (const found of tree.find(source, request.parents))
          await take(found, isAdd && request.unpack !== false);
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

/** Whether a file is a tar archive, compressed or not, which is what ADD unpacks: told by its first block. */
async function archiveOf(
  path: ByteString,
  { scratchPath, signal }: Pick<CopyRequest, 'scratchPath' | 'signal'>,
): Promise<Archive | undefined> {
  const name = Buffer.from(path, 'latin1').toString('utf8');
  if (!existsSync(name)) return undefined;
  const expanded = await expandForeign(name, `${scratchPath}/${randomUUID()}.tar`, signal);
  if (expanded) return archiveOf(latin1(expanded), { scratchPath, signal });
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
