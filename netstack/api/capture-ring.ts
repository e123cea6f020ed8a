/** The latest frames of a network that pass a filter, held in memory up to a size: what VPNKit keeps for its diagnostics. */
import type { Network } from '../index.ts';

const FILE_HEADER_LEN = 24;
const RECORD_HEADER_LEN = 16;

export class CaptureRing {
  readonly #bytesMax: number;
  readonly #records: Buffer[] = [];
  #header: Buffer = Buffer.alloc(0);
  #bytes = 0;
  #partial: Buffer = Buffer.alloc(0);
  #end: () => void = () => {};

  /** @param bytesMax of the records that are kept */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** Begins to keep. @throws DrydockError as Network.captureLive() does */
  async start(network: Network, filter: string, snapLen: number): Promise<void> {
    const { stream } = await network.captureLive({ filter, snapLen });
    stream.on('data', (chunk: Buffer) => this.take(chunk));
    this.#end = () => void stream.destroy();
  }

  /** Takes the next bytes of a pcap stream. */
  take(chunk: Buffer): void {
    let data = this.#partial.length === 0 ? chunk : Buffer.concat([this.#partial, chunk]);
    if (this.#header.length === 0 && data.length >= FILE_HEADER_LEN) {
      this.#header = Buffer.from(data.subarray(0, FILE_HEADER_LEN));
      data = data.subarray(FILE_HEADER_LEN);
    }
    while (this.#header.length > 0 && data.length >= RECORD_HEADER_LEN) {
      const length = RECORD_HEADER_LEN + data.readUInt32LE(8);
      if (data.length < length) break;
      this.#keep(Buffer.from(data.subarray(0, length)));
      data = data.subarray(length);
    }
    this.#partial = Buffer.from(data);
  }

  #keep(record: Buffer): void {
    this.#records.push(record);
    this.#bytes += record.length;
    while (this.#bytes > this.#bytesMax) this.#bytes -= this.#records.shift()!.length;
  }

  /** A pcap file of what is kept. */
  content(): Uint8Array {
    return Buffer.concat([this.#header, ...this.#records]);
  }

  close(): void {
    this.#end();
  }
}
