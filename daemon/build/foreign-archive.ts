/** Archives in ways of compression that Node can't read: they go through the host's own program. */
import { spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { DrydockError, errorCode } from '#common/errors';
import { MAGIC_BYTES, unsupportedCompression } from '../image/compression.ts';
import { LAYER_BYTES_MAX } from '../image/extract.ts';

/**
 * Decompresses a file of bzip2 or xz into another.
 * @returns the other's path; undefined when the file is of another kind, or is broken
 * @throws ERR_BUILD when this machine lacks the program
 */
export async function expandForeign(
  path: string,
  into: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  const program = await foreignProgram(path);
  if (program === undefined) return undefined;
  const child = spawn(program, ['-dc', '--', path], { stdio: ['ignore', 'pipe', 'ignore'], signal });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', (error) =>
      reject(
        errorCode(error) === 'ENOENT'
          ? new DrydockError('ERR_BUILD', `${program} is not installed, which the archive is compressed with`)
          : error,
      ),
    );
    child.once('close', resolve);
  });
  try {
    const [status] = await Promise.all([ended, pipeline(child.stdout, limited(), createWriteStream(into))]);
    if (status === 0) return into;
  } catch (error) {
    await rm(into, { force: true });
    throw error;
  }
  await rm(into, { force: true });
  return undefined;
}

/** The program for a file's first bytes; undefined for what is read without one. */
export async function foreignProgram(path: string): Promise<string | undefined> {
  const handle = await open(path, 'r');
  try {
    const { buffer } = await handle.read(Buffer.alloc(MAGIC_BYTES), 0, MAGIC_BYTES, 0);
    return unsupportedCompression(buffer);
  } finally {
    await handle.close();
  }
}

/** Ends what grows beyond every bound. */
function limited(): Transform {
  let length = 0;
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      length += chunk.length;
      if (length > LAYER_BYTES_MAX)
        done(new DrydockError('ERR_BUILD', `the archive has more than ${LAYER_BYTES_MAX} bytes`));
      else done(null, chunk);
    },
  });
}
