/**
 * Where a build's Dockerfile and context come from: folders of the client, which its session gives; a tar archive of
 * http or of the client's standard input; a git repository.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import type { ReadableStream } from 'node:stream/web';
import { DrydockError } from '#common/errors';
import { resolveInRoot } from '../../mounts/rootpath.ts';
import { parseDockerfile } from '../dockerfile.ts';
import { fetchGit, parseGitUrl } from '../git.ts';
import { ignorePatterns } from '../ignore.ts';
import { type BuildSource, type Builds, readDockerfile } from '../service.ts';
import { cleanPath } from '../sources.ts';
import { type FolderRequest, fetchFolder, type Received } from './filesync.ts';
import { pullUpload, sessionStepClient } from './session-client.ts';
import type { Session } from './sessions.ts';
import type { Trace } from './trace.ts';

/** What `# syntax=` may ask for: the language that is built in. */
const SYNTAX =
  /^(docker\.io\/)?docker\/dockerfile(-upstream)?(:1(\.\d+)*(-labs)?|:latest|:labs)?(@sha256:[0-9a-f]{64})?$/;
/** The address under which clients offer their standard input. */
const UPLOAD_HOST = 'buildkit-session';

/** The build that sources are fetched for. */
export interface SourceParts {
  builds: Builds;
  session: Session;
  trace: Trace;
  /** A folder of the build's own. */
  scratchPath: string;
  signal: AbortSignal;
}

/** What names the sources. */
export interface SourceNames {
  /** The Dockerfile's path in its folder. */
  filename: string;
  /** The client's names for its two folders. */
  contextName: string;
  dockerfileName: string;
  /** The context is not the client's folder, but at this address. */
  remote: string | undefined;
  /** With a remote context: the Dockerfile comes from the client all the same. */
  hasOwnDockerfile: boolean;
  /** A folder of the context that is used instead of all of it. */
  subfolder: string;
}

/** Fetches a folder of the client, and unpacks it below the build's own. */
export async function fetchClientFolder(
  parts: SourceParts,
  as: string,
  folder: FolderRequest,
  received: Received = () => {},
): Promise<string> {
  const archivePath = join(parts.scratchPath, `${as}.tar`);
  await fetchFolder(parts.session, folder, archivePath, parts.signal, received);
  return parts.builds.unpack(archivePath, join(parts.scratchPath, as), parts.signal);
}

/** Fetches a folder of the client without what its .dockerignore names. */
export async function fetchNamedFolder(parts: SourceParts, as: string, name: string): Promise<string> {
  const folder = await fetchClientFolder(parts, `${as}-ignore`, { name, followPaths: ['.dockerignore'] });
  const ignore = (await textOf(folder, '.dockerignore')) ?? '';
  return fetchClientFolder(parts, as, { name, excludes: ignorePatterns(ignore) });
}

/** Fetches Dockerfile and context. @throws ERR_BUILD, ERR_SESSION, ERR_BAD_DOCKERFILE for another language */
export async function fetchSource(parts: SourceParts, names: SourceNames): Promise<BuildSource> {
  const { filename, remote, hasOwnDockerfile } = names;
  if (remote !== undefined && !hasOwnDockerfile) {
    const contextPath = await parts.trace.run(`[internal] load remote build context`, () =>
      fetchRemote(parts, remote, 'context', names.subfolder),
    );
    return checkSyntax({ contextPath, dockerfile: await readDockerfile(contextPath, filename) }, parts.trace);
  }
  const definition = await loadDefinition(parts, names);
  if (remote !== undefined) {
    const contextPath = await parts.trace.run('[internal] load remote build context', () =>
      fetchRemote(parts, remote, 'context', names.subfolder),
    );
    return checkSyntax({ contextPath, dockerfile: definition.text }, parts.trace);
  }
  const ignore = await parts.trace.run('[internal] load .dockerignore', async () => {
    if (definition.ignore !== undefined) return definition.ignore;
    const wanted = { name: names.contextName, followPaths: ['.dockerignore'] };
    const folder = await fetchClientFolder(parts, 'ignore', wanted);
    return (await textOf(folder, '.dockerignore')) ?? '';
  });
  const contextPath = await parts.trace.run('[internal] load build context', (step) => {
    const wanted = { name: names.contextName, excludes: ignorePatterns(ignore) };
    const transfer = step.transfer('context');
    return fetchClientFolder(parts, 'context', wanted, transfer.received).finally(transfer.end);
  });
  return checkSyntax({ contextPath, dockerfile: definition.text }, parts.trace);
}

function loadDefinition(
  parts: SourceParts,
  { filename, dockerfileName }: SourceNames,
): Promise<{ text: string; ignore: string | undefined }> {
  const name = cleanPath(filename);
  const ownIgnore = `${name}.dockerignore`;
  return parts.trace.run(`[internal] load build definition from ${filename}`, async () => {
    const followPaths = [name, ownIgnore, ...(name === 'Dockerfile' ? ['dockerfile'] : [])];
    const folder = await fetchClientFolder(parts, 'definition', { name: dockerfileName, followPaths });
    const text = (await textOf(folder, name)) ?? (await textOf(folder, name.toLowerCase()));
    if (text === undefined)
      throw new DrydockError(
        'ERR_BUILD',
        `failed to read dockerfile: open ${filename}: no such file or directory`,
      );
    return { text, ignore: await textOf(folder, ownIgnore) };
  });
}

/** Fetches what an address names into a folder. @throws ERR_DOWNLOAD, ERR_BUILD */
export async function fetchRemote(
  parts: SourceParts,
  remote: string,
  as: string,
  subfolder = '',
): Promise<string> {
  const { builds, scratchPath, session, signal } = parts;
  const path = join(scratchPath, as);
  const git = parseGitUrl(remote);
  if (git) {
    const token = await gitToken(parts, git.url);
    const wanted = { ...git, subfolder: git.subfolder || subfolder };
    return fetchGit(wanted, path, { keepGitDir: false, signal, ...(token !== undefined && { token }) });
  }
  if (!URL.canParse(remote)) throw new DrydockError('ERR_BUILD', `invalid context ${JSON.stringify(remote)}`);
  const url = new URL(remote);
  const stream =
    url.host === UPLOAD_HOST
      ? Readable.from(pullUpload(session, url, signal))
      : await openRemote(url, signal);
  const unpacked = await builds.receiveInto(stream, path, signal);
  return subfolder === '' ? unpacked : join(unpacked, cleanPath(subfolder));
}

/** What is at an address of http or https. @throws ERR_DOWNLOAD */
export async function openRemote(url: URL, signal: AbortSignal): Promise<Readable> {
  if (!/^https?:$/.test(url.protocol))
    throw new DrydockError(
      'ERR_BAD_PARAMETER',
      `the context ${JSON.stringify(url.href)} can't be fetched: use http, https or git`,
    );
  const answer = await fetch(url, { signal });
  if (!answer.ok || !answer.body)
    throw new DrydockError(
      'ERR_DOWNLOAD',
      `error downloading remote context ${url.href}: status ${answer.status}`,
    );
  return Readable.fromWeb(answer.body as ReadableStream);
}

/** The client's token for a host of git, which it gives as a secret (docs.docker.com/build/building/secrets). */
async function gitToken({ session, signal }: SourceParts, url: string): Promise<string | undefined> {
  const client = sessionStepClient(session);
  for (const name of [`GIT_AUTH_TOKEN.${new URL(url).host}`, 'GIT_AUTH_TOKEN']) {
    const token = await client.secret(name, signal);
    if (token !== undefined) return Buffer.from(token).toString().trim();
  }
  return undefined;
}

/** The text of a file that the client may not have; a link leads nowhere but to the same folder. */
async function textOf(folder: string, path: string): Promise<string | undefined> {
  try {
    return await readFile(await resolveInRoot(folder, path), 'utf8');
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  }
}

/** Refuses another language than the one that is built in, and tells of what is not checked. @throws ERR_BAD_DOCKERFILE */
export function checkSyntax(source: BuildSource, trace: Trace): BuildSource {
  const { syntax, check } = parseDockerfile(source.dockerfile);
  if (check?.includes('error=true'))
    trace.begin(`[warning] # check=${check}: the Dockerfile is not linted here`).end();
  if (syntax !== undefined && !SYNTAX.test(syntax))
    throw new DrydockError(
      'ERR_BAD_DOCKERFILE',
      `the frontend ${syntax} can't be run: only docker/dockerfile:1 is built in. Take the line # syntax= out`,
    );
  return source;
}
