/**
 * Links carry Ethernet frames between a guest and the stack.
 *
 * A frame in memory is always preceded by its virtio_net_hdr (the 10-byte form, little endian: u8 flags, u8 gso_type,
 * u16 hdr_len, u16 gso_size, u16 csum_start, u16 csum_offset). It is all zero for a plain frame. It says whether the
 * transport checksum is still to be completed (NEEDS_CSUM) and whether the frame is a super-frame of several TCP
 * segments or UDP datagrams (gso_type, gso_size). So whole segments travel from a TAP to the stack, or from TAP to
 * TAP, without being cut; links that cannot carry them cut and complete in software (link/offload.ts).
 */

/** Length of the virtio_net_hdr before every frame. */
export const VNET_HDR_LEN = 10;
/** Largest frame with its header: 64 KiB of IP packet and room for Ethernet, VLAN and the virtio_net_hdr. */
export const FRAME_BYTES_MAX: number = 65536 + 64;

/** Where a link delivers what it received. `off` is the start of the virtio_net_hdr, `end` the end of the frame. The bytes are only valid during the call. */
export interface FrameSink {
  frame(buf: Uint8Array, off: number, end: number): void;
  /** The batch is over. Called by links with {@link Link.batches} alone. */
  flush?(): void;
}

/** One end of a wire. All calls are synchronous; nothing is kept of the arguments after a call returns. */
export interface Link {
  /** Largest IP packet that a plain frame carries. */
  readonly mtuBytes: number;
  /** True when super-frames (gso_size > 0) and incomplete checksums may be sent as they are. */
  readonly offload: boolean;
  /** True: tells its sink when a batch of frames is over, so that the sink may hold one back until then. */
  readonly batches?: boolean;
  /**
   * Sends one frame, given as a head (virtio_net_hdr and protocol headers) and an optional body (payload), so that
   * payload need not be copied behind its header. Returns false when the frame was dropped because the other side does not
   * read: TCP retransmits, and a stalled guest never stalls another.
   */
  send(
    head: Uint8Array,
    headOff: number,
    headLen: number,
    body: Uint8Array | undefined,
    bodyOff: number,
    bodyLen: number,
  ): boolean;
  /** Flushes what a batch has gathered; called once after each batch. */
  flush(): void;
  /** Takes received frames from now on. */
  start(sink: FrameSink): void;
  close(): void;
}
