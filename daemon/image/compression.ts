/** Compressed streams, told by their first bytes as docker does, whatever a media type may claim. */
import { Transform } from 'node:stream';
import zlib, { createGunzip } from 'node:zlib';
import { Decompress } from 'fzstd';
import { badArchive } from './tar/reader.ts';

export type Compression = 'none' | 'gzip' | 'zstd';

/** Bytes that {@link detectCompression} needs to see. */
export const MAGIC_BYTES = 4;

/** RFC 1952 section 2.3.1 and RFC 8878 section 3.1.1; skippable zstd frames (3.1.2) may come first. */
export function detectCompression(start: Uint8Array): Compression {
  if (start[0] === 0x1f && start[1] === 0x8b) return 'gzip';
  if (start[1] === 0xb5 && start[2] === 0x2f && start[3] === 0xfd && start[0] === 0x28) return 'zstd';
  if ((start[0]! & 0xf0) === 0x50 && start[1] === 0x2a && start[2] === 0x4d && start[3] === 0x18)
    return 'zstd';
  return 'none';
}

/** A name for a compression that is told apart only to say that it is not supported. */
export function unsupportedCompression(start: Uint8Array): string | undefined {
  if (start[0] === 0x42 && start[1] === 0x5a && start[2] === 0x68) return 'bzip2';
  if (start[0] === 0xfd && start[1] === 0x37 && start[2] === 0x7a && start[3] === 0x58) return 'xz';
  return undefined;
}

/** A stream that decompresses, or undefined when nothing is to be done. Broken input is ERR_BAD_ARCHIVE. */
export function decompressor(compression: Compression): Transform | undefined {
  if (compression === 'none') return undefined;
  const native = zlib as { createZstdDecompress?: () => Transform };
  const stream = compression === 'gzip' ? createGunzip() : (native.createZstdDecompress?.() ?? fzstdStream());
  // zlib's own errors have codes of their own; for us they are one kind.
  const destroy = stream._destroy.bind(stream);
  stream._destroy = (error, done) =>
    destroy(error && badArchive(`bad ${compression} data (${error.message})`), done);
  return stream;
}

function fzstdStream(): Transform {
  const decoder = new Decompress();
  let ended = false;
  const stream = new Transform({
    transform(chunk: Uint8Array, _encoding, done) {
      attempt(() => decoder.push(chunk), done);
    },
    flush(done) {
      attempt(() => {
        decoder.push(new Uint8Array(0), true);
        if (!ended) throw new Error('it ends too early');
      }, done);
    },
  });
  decoder.ondata = (data, final) => {
    ended ||= final === true;
    if (data.length > 0) stream.push(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  };
  return stream;
}

function attempt(action: () => void, done: (error?: Error) => void): void {
  try {
    action();
  } catch (error) {
    done(error instanceof Error ? error : new Error(String(error)));
    return;
  }
  done();
}
