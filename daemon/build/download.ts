/** ADD of a URL. */
import { createHash } from 'node:crypto';
import { open, utimes } from 'node:fs/promises';
import querystring from 'node:querystring';
import { Readable } from 'node:stream';
import type { ReadableStream } from 'node:stream/web';
import { DrydockError } from '#common/errors';
import { LAYER_BYTES_MAX } from '../image/extract.ts';
import type { FoundSource } from './sources.ts';

/** What is to be fetched, and where to. */
export interface DownloadRequest {
  instruction: string;
  /** A slash at its end counts. */
  destination: string;
  /** `sha256:` and hexadecimal digits. */
  checksum: string | undefined;
  scratchPath: string;
  signal: AbortSignal;
}

const latin1 = (text: string): string => Buffer.from(text).toString('latin1');

/** Fetches a file: with mode 0600 and the server's time, named as the URL is. @throws ERR_DOWNLOAD, ERR_BUILD */
export async function download(source: string, request: DownloadRequest): Promise<FoundSource> {
  const { checksum, instruction, destination } = request;
  if (checksum !== undefined && !/^sha256:[0-9a-f]{64}$/.test(checksum))
    throw new DrydockError(
      'ERR_BUILD',
      `invalid checksum ${JSON.stringify(checksum)}: it must be sha256: and 64 digits`,
    );
  const url = new URL(source);
  const name = querystring.unescape(url.pathname.split('/').at(-1)!).replaceAll('/', '');
  if (destination.endsWith('/') && name === '')
    throw new DrydockError('ERR_BUILD', `cannot determine filename from url: ${source}`);
  const answer = await fetch(url, { signal: request.signal }).catch((error: Error) => {
    throw new DrydockError(
      'ERR_DOWNLOAD',
      `${instruction} failed: Get ${JSON.stringify(source)}: ${String(error.cause ?? error.message)}`,
    );
  });
  if (!answer.ok || !answer.body)
    throw new DrydockError(
      'ERR_DOWNLOAD',
      `${instruction} failed: failed to GET ${source} with status ${answer.status} ${answer.statusText}`,
    );
  const path = `${request.scratchPath}/download`;
  const digest = await store(answer.body as ReadableStream, path, source);
  if (checksum !== undefined && digest !== checksum)
    throw new DrydockError('ERR_BUILD', `digest mismatch ${digest}: ${checksum}`);
  const modifiedMs = Date.parse(answer.headers.get('last-modified') ?? '');
  // Without a time of the server's, docker gives the file the epoch.
  const seconds = Number.isNaN(modifiedMs) ? 0 : modifiedMs / 1000;
  await utimes(path, seconds, seconds);
  return { path: latin1(path), name: latin1(name || 'download'), isDirectory: false };
}

/** Writes what comes, and returns its digest. */
async function store(body: ReadableStream, path: string, source: string): Promise<string> {
  const hash = createHash('sha256');
  const handle = await open(path, 'w', 0o600);
  try {
    let length = 0;
    for await (const chunk of Readable.fromWeb(body) as AsyncIterable<Buffer>) {
      length += chunk.length;
      if (length > LAYER_BYTES_MAX)
        throw new DrydockError('ERR_DOWNLOAD', `${source} has more than ${LAYER_BYTES_MAX} bytes`);
      hash.update(chunk);
      await handle.write(chunk);
    }
  } finally {
    await handle.close();
  }
  return `sha256:${hash.digest('hex')}`;
}
