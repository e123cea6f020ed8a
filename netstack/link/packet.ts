/**
 * Links over a socket that keeps message boundaries: one frame, one packet, no header. bess and passt's peers use
 * SOCK_SEQPACKET, Apple's virtualization framework (vfkit, krunkit) and QEMU's dgram back end use SOCK_DGRAM.
 *
 * A peer that does not read makes the socket full; the frame is then dropped, which TCP notices and repairs.
 */
import { EPOLLIN } from '#common/native/epoll';
import { errnoName } from '#common/native/libc';
import * as socket from '#common/native/socket';
import * as socketOptions from '#common/native/socket-options';
import { writeFrame } from '#common/native/tap';
import type { Poller } from '../host/poller.ts';
import { FRAME_BYTES_MAX, type FrameSink, type Link, VNET_HDR_LEN } from './link.ts';
import type { StreamEnd } from './stream.ts';

/** Frames read in one turn of the loop. */
const FRAMES_PER_TURN = 64;
const ETHERNET_HEADER_LEN = 14;
/** Room in the socket, as gvproxy asks for: a burst to a machine, and several windows from it. */
const SEND_BUFFER_BYTES = 1 << 20;
const RECEIVE_BUFFER_BYTES = 4 << 20;

/** The first bytes of the buffer stay zero: they are the virtio_net_hdr of every frame. */
const buffer = new Uint8Array(new ArrayBuffer(FRAME_BYTES_MAX));

/** How a packet link is made. */
export interface PacketLinkOptions {
  poller: Poller;
  /** A connected, non-blocking socket, owned by the link from now on. */
  fd: number;
  mtuBytes: number;
  /** True for SOCK_SEQPACKET, where an empty packet is the end. */
  connectionOriented: boolean;
  /** The peer has gone. The link is closed already. */
  ended: (end: StreamEnd) => void;
}

/** A link over a packet socket. */
export class PacketLink implements Link {
  readonly mtuBytes: number;
  readonly offload = false;
  readonly batches = true;
  readonly #poller: Poller;
  readonly #connectionOriented: boolean;
  readonly #ended: (end: StreamEnd) => void;
  #sink: FrameSink = { frame() {} };
  #fd: number;

  constructor(options: PacketLinkOptions) {
    this.#poller = options.poller;
    this.#fd = options.fd;
    this.mtuBytes = options.mtuBytes;
    this.#connectionOriented = options.connectionOriented;
    this.#ended = options.ended;
    socketOptions.setBuffers(this.#fd, SEND_BUFFER_BYTES, RECEIVE_BUFFER_BYTES);
  }

  start(sink: FrameSink): void {
    this.#sink = sink;
    this.#poller.watch(this.#fd, EPOLLIN, () => this.#read());
  }

  /** Hands out a frame that was received before the link was made. */
  inject(frame: Uint8Array): void {
    buffer.set(frame, VNET_HDR_LEN);
    this.#deliver(frame.length);
    this.#sink.flush?.();
  }

  #deliver(length: number): void {
    buffer.fill(0, 0, VNET_HDR_LEN);
    if (length >= ETHERNET_HEADER_LEN) this.#sink.frame(buffer, 0, VNET_HDR_LEN + length);
  }

  #read(): void {
    this.#readBatch();
    if (this.#fd >= 0) this.#sink.flush?.();
  }

  #readBatch(): void {
    for (let i = 0; i < FRAMES_PER_TURN && this.#fd >= 0; i++) {
      const length = socket.receive(this.#fd, buffer, VNET_HDR_LEN, FRAME_BYTES_MAX - VNET_HDR_LEN);
      if (length > 0) this.#deliver(length);
      else if (length === 0) {
        if (this.#connectionOriented) this.#end({ reason: 'closed' });
      } else {
        const code = errnoName(socket.socketErrno());
        if (code === 'ECONNRESET' || code === 'ECONNREFUSED') this.#end({ reason: 'closed' });
        else if (code !== 'EAGAIN' && code !== 'EINTR') this.#end({ reason: 'failed', detail: code });
        return;
      }
    }
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
    const from = headOff + VNET_HDR_LEN;
    if (writeFrame(this.#fd, head, from, headLen - VNET_HDR_LEN, body, bodyOff, bodyLen) >= 0) return true;
    const code = errnoName(socket.socketErrno());
    if (code === 'ECONNREFUSED' || code === 'ECONNRESET' || code === 'EPIPE' || code === 'ENOTCONN')
      this.#poller.defer(() => this.#end({ reason: 'closed' }));
    return false;
  }

  flush(): void {}

  #end(end: StreamEnd): void {
    if (this.#fd < 0) return;
    this.close();
    this.#ended(end);
  }

  close(): void {
    if (this.#fd < 0) return;
    this.#poller.forget(this.#fd);
    socket.close(this.#fd);
    this.#fd = -1;
  }
}
