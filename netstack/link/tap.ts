/**
 * A TAP device as a link. The kernel's end is the guest's interface; frames come and go with their virtio_net_hdr, so
 * whole super-segments pass and nobody computes a checksum.
 *
 * A write to a TAP puts the frame into the guest's stack at once and wakes who waits for it. Large frames are written as they come;
 * small ones when the turn of the loop ends (host/write-batch.ts).
 */
import { EPOLLIN } from '#common/native/epoll';
import { close } from '#common/native/socket';
import { readFrame, type Tap, writeFrame } from '#common/native/tap';
import { Burst, type Poller } from '../host/poller.ts';
import { BATCH_FRAMES, receiveBatch } from '../host/receive-batch.ts';
import { GATHERED_BYTES_MAX, writeBatch } from '../host/write-batch.ts';
import { FRAME_BYTES_MAX, type FrameSink, type Link, VNET_HDR_LEN } from './link.ts';

/** Shortest Ethernet frame worth a look: its header. */
const ETHERNET_HEADER_LEN = 14;

/** A link over an open TAP, which it owns. */
export class TapLink implements Link {
  readonly mtuBytes: number;
  readonly offload: boolean;
  readonly #poller: Poller;
  #fd: number;
  /** Lengths of the frames of the batch in hand. */
  readonly #lengths = new Int32Array(BATCH_FRAMES);

  constructor(poller: Poller, tap: Tap, mtuBytes: number) {
    this.#poller = poller;
    this.#fd = tap.fd;
    this.mtuBytes = mtuBytes;
    this.offload = tap.segmentation;
  }

  start(sink: FrameSink): void {
    const burst = new Burst(this.#poller);
    this.#poller.watch(this.#fd, EPOLLIN, () => {
      const expected = burst.expected();
      let came = 0;
      while (came < expected) {
        const wanted = Math.min(BATCH_FRAMES, expected - came);
        const count = this.#receive(sink, wanted);
        came += count;
        if (count < wanted) break;
      }
      burst.came(came);
    });
  }

  /** Reads a batch of up to `wanted` frames and hands them out. Returns how many there were. */
  #receive(sink: FrameSink, wanted: number): number {
    const { bytes } = receiveBatch;
    let count = 0;
    for (; count < wanted && this.#fd >= 0; count++) {
      const length = readFrame(this.#fd, bytes, receiveBatch.slot(count), FRAME_BYTES_MAX);
      if (length < 0) break;
      this.#lengths[count] = length;
    }
    for (let i = 0; i < count && this.#fd >= 0; i++) {
      const at = receiveBatch.slot(i);
      const length = this.#lengths[i]!;
      if (length >= VNET_HDR_LEN + ETHERNET_HEADER_LEN) sink.frame(bytes, at, at + length);
    }
    receiveBatch.flush();
    return count;
  }

  send(
    head: Uint8Array,
    headOff: number,
    headLen: number,
    body: Uint8Array | undefined,
    bodyOff: number,
    bodyLen: number,
  ): boolean {
    if (this.#fd < 0) return false;
    if (headLen + bodyLen <= GATHERED_BYTES_MAX) {
      writeBatch.add(this.#fd, head, headOff, headLen, body, bodyOff, bodyLen);
      return true;
    }
    writeBatch.flush();
    return writeFrame(this.#fd, head, headOff, headLen, body, bodyOff, bodyLen) >= 0;
  }

  flush(): void {
    writeBatch.flush();
  }

  close(): void {
    if (this.#fd < 0) return;
    writeBatch.flush();
    this.#poller.forget(this.#fd);
    close(this.#fd);
    this.#fd = -1;
  }
}
