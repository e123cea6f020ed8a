/**
 * Whether an unpacked layer is still what it was unpacked from. One that was made on this machine is packed again, which
 * gives its digest. One that came as a blob is unpacked once more beside it, and both are packed: the archive itself may
 * have its entries in any order.
 */
import { createHash } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '#common/clock';
import type { UserMaps } from '#common/id-map';
import { LAYER_BYTES_MAX } from '../image/extract.ts';
import { detectBlob, type LayerFile } from '../image/layers.ts';
import { packTree } from '../image/pack.ts';
import { FileWorkers } from '../image/workers.ts';
import { temporaryName } from './durable.ts';

/** Compares the layers of one driver. End it with close(). */
export class LayerComparison {
  readonly #driverRoot: string;
  readonly #isOverlay: boolean;
  readonly #workers: FileWorkers;

  /** @param maps how the users of the layers' files are those of the machine, when they are others */
  constructor(driverRoot: string, isOverlay: boolean, maps: UserMaps | undefined) {
    this.#driverRoot = driverRoot;
    this.#isOverlay = isOverlay;
    this.#workers = new FileWorkers(systemClock, maps);
  }

  close(): Promise<void> {
    return this.#workers.close();
  }

  /** The digest of what a layer's folder is packed to. */
  packedDigest(folder: string): string {
    const hash = createHash('sha256');
    const options = { overlay: this.#isOverlay, maps: this.#workers.maps };
    for (const chunk of packTree(join(folder, 'diff'), options)) hash.update(chunk);
    return `sha256:${hash.digest('hex')}`;
  }

  /** Whether a layer's folder holds what its blob does. @param blobPath a sound one */
  async isAsInBlob(folder: string, layer: LayerFile, blobPath: string): Promise<boolean> {
    // Swept by the next start if this process is killed.
    const temporary = join(this.#driverRoot, 'layers', temporaryName());
    try {
      await mkdir(join(temporary, 'diff'), { recursive: true, mode: 0o755 });
      const { diffId } = await this.#workers.unpack({
        blobPath,
        compression: await detectBlob(blobPath),
        targetPath: join(temporary, 'diff'),
        whiteouts: this.#isOverlay ? 'overlay' : 'files',
        bytesMax: LAYER_BYTES_MAX,
        prefix: '',
      });
      return diffId === layer.diffId && this.packedDigest(temporary) === this.packedDigest(folder);
    } finally {
      await rm(temporary, { recursive: true, force: true });
    }
  }
}
