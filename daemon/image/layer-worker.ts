/**
 * The worker thread that unpacks layers: reads a blob, decompresses it, hashes what comes out (the layer's diff id)
 * and extracts it. One message in, one out; errors cross as code and text.
 */
import { createHash } from 'node:crypto';
import { closeSync, createReadStream, openSync, readSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { errorCode, errorMessage } from '#common/errors';
import { syncFileSystem } from '#common/native/layer-fs';
import { type Compression, decompressor } from './compression.ts';
import { extractionError, LayerExtractor, type WhiteoutForm } from './extract.ts';
import { badArchive, TarReader } from './tar/reader.ts';

/** What to unpack, and where to. */
export interface LayerJob {
  id: number;
  blobPath: string;
  compression: Compression;
  targetPath: string;
  whiteouts: WhiteoutForm;
  bytesMax: number;
}

export type LayerJobResult =
  | { id: number; diffId: string; bytes: number; entries: number; tarBytes: number }
  | { id: number; error: { code: string | undefined; message: string } };

const READ_BYTES = 1 << 20;

async function forEachChunk(job: LayerJob, take: (chunk: Buffer) => void): Promise<void> {
  const transform = decompressor(job.compression);
  if (transform) {
    const source = createReadStream(job.blobPath, { highWaterMark: READ_BYTES });
    source.on('error', (error) => transform.destroy(error));
    source.pipe(transform);
    for await (const chunk of transform) take(chunk as Buffer);
    return;
  }
  const fd = openSync(job.blobPath, 'r');
  try {
    const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
    for (;;) {
      const length = readSync(fd, buffer, 0, buffer.length, null);
      if (length === 0) return;
      take(buffer.subarray(0, length));
    }
  } finally {
    closeSync(fd);
  }
}

async function unpack(job: LayerJob): Promise<LayerJobResult> {
  const hash = createHash('sha256');
  const extractor = new LayerExtractor(job.targetPath, job.whiteouts, job.bytesMax);
  try {
    const reader = new TarReader(extractor);
    let tarBytes = 0;
    let trailing = 0;
    await forEachChunk(job, (chunk) => {
      hash.update(chunk);
      tarBytes += chunk.length;
      if (reader.done) trailing += chunk.length;
      // Padding after the end belongs to the digest, but a compressed one could go on for ever.
      if (trailing > job.bytesMax) throw badArchive('it goes on after its end');
      reader.push(chunk);
    });
    reader.finish();
    const { bytes, entries } = extractor.finish();
    const fd = openSync(job.targetPath, 'r');
    // The layer's folder gets its final name next: what it holds must be on the disk by then.
    syncFileSystem(fd);
    closeSync(fd);
    return { id: job.id, diffId: `sha256:${hash.digest('hex')}`, bytes, entries, tarBytes };
  } finally {
    extractor.close();
  }
}

parentPort?.on('message', (job: LayerJob) => {
  unpack(job).then(
    (result) => parentPort!.postMessage(result),
    (reason: unknown) => {
      const error = extractionError(reason);
      const failure: LayerJobResult = {
        id: job.id,
        error: { code: errorCode(error), message: errorMessage(error) },
      };
      parentPort!.postMessage(failure);
    },
  );
});
