/**
 * Captures: frames as Wireshark and tcpdump read them (pcap, draft-ietf-opsawg-pcap: microseconds, Ethernet).
 *
 * A capture looks at the switch's traffic, so it sees each frame once, whichever way it goes. Frames are shown whole: the
 * checksums that the kernel left to the hardware are completed in the copy, so that readers do not cry wolf; super-frames
 * stay together, as tcpdump shows them on any machine with segmentation offload.
 *
 * Records are gathered and written when the loop has nothing more urgent. A file is rotated by size. A pipe whose reader
 * is slow loses whole records, never parts of one, and never holds the network up.
 */
import { closeSync, constants as fsConstants, fstatSync, openSync, renameSync, writeSync } from 'node:fs';
import { DrydockError, errorCode } from '#common/errors';
import { put16 } from '../wire/address.ts';
import { complement, sum } from '../wire/checksum.ts';
import { get16le, NEEDS_CSUM } from '../wire/virtio.ts';
import { type CaptureFilter, compileFilter } from './capture-filter.ts';
import { FRAME_BYTES_MAX, VNET_HDR_LEN } from './link.ts';
import type { FrameObserver } from './switch.ts';

const FILE_HEADER_LEN = 24;
const RECORD_HEADER_LEN = 16;
const MAGIC_MICROSECONDS = 0xa1b2c3d4;
const LINKTYPE_ETHERNET = 1;

/** Gathered before a write. A reader of a pipe may be this far behind. */
const BUFFER_BYTES = 1 << 20;
/** Frames are kept in the buffer no longer than this. */
const FLUSH_MS = 100;
/** Longest part of a frame that is kept unless a shorter one is asked for. */
const SNAP_LEN_DEFAULT = 262_144;
const ROTATE_BYTES_MIN = 64 * 1024;
const FILES_MAX = 1000;

/** What to capture, and where to. */
export interface CaptureOptions {
  /** A file, or a named pipe that somebody reads (`mkfifo`, `wireshark -k -i`). */
  path: string;
  /** As of pcap-filter(7): `tcp port 443 and host 172.17.0.2`. */
  filter?: string;
  /** A file larger than this is put aside as `PATH.1`, and so on. Default: never. */
  rotateBytes?: number;
  /** How many files to keep besides the one that is written, when rotating. Default 5. */
  files?: number;
  /** Bytes kept of each frame. */
  snapLen?: number;
}

/** What to capture, and the descriptor of a pipe or socket to write it to: the capture owns it, and does not wait for it. */
export interface LiveCaptureOptions extends Pick<CaptureOptions, 'filter' | 'snapLen'> {
  fd: number;
}

/** What a capture has counted. */
export interface CaptureCounters {
  frames: number;
  /** Frames lost because the reader of the pipe was slow. */
  dropped: number;
}

/** How a capture does. */
export interface CaptureState extends CaptureCounters {
  /** The errno's name that ended it early (a full disk, a reader that left), or undefined. */
  failed: string | undefined;
}

/**
 * Checks the numbers of a capture.
 * @throws DrydockError ERR_CAPTURE_OPTIONS
 */
export function checkCapture({
  rotateBytes,
  files = 5,
  snapLen = SNAP_LEN_DEFAULT,
}: Omit<CaptureOptions, 'path'>): void {
  const fits = (value: number, min: number, max: number): boolean =>
    Number.isInteger(value) && value >= min && value <= max;
  if (
    (rotateBytes === undefined || fits(rotateBytes, ROTATE_BYTES_MIN, Number.MAX_SAFE_INTEGER)) &&
    fits(files, 1, FILES_MAX) &&
    fits(snapLen, 14, SNAP_LEN_DEFAULT)
  )
    return;
  throw new DrydockError(
    'ERR_CAPTURE_OPTIONS',
    `A capture rotates at ${ROTATE_BYTES_MIN} bytes or more, keeps 1 to ${FILES_MAX} files and 14 to ${SNAP_LEN_DEFAULT} bytes of a frame.`,
  );
}

/** A capture in progress. */
export class Capture implements FrameObserver {
  readonly counters: CaptureCounters = { frames: 0, dropped: 0 };
  /** Of a file: where it is, and when the next begins. */
  readonly #file: CaptureOptions | undefined;
  readonly #wanted: CaptureFilter;
  readonly #snapLen: number;
  readonly #wallMs: () => number;
  readonly #frame: Uint8Array = new Uint8Array(FRAME_BYTES_MAX);
  readonly #buffer: Uint8Array = new Uint8Array(BUFFER_BYTES);
  readonly #view: DataView;
  #length = 0;
  #fd: number;
  #fileBytes = 0;
  #flushedMs = 0;
  #failed: string | undefined;

  /** @throws DrydockError ERR_FILTER_INVALID, ERR_CAPTURE_OPTIONS, ERR_CAPTURE_NO_READER */
  constructor(options: CaptureOptions | LiveCaptureOptions, wallMs: () => number) {
    checkCapture(options);
    const { snapLen = SNAP_LEN_DEFAULT } = options;
    this.#file = 'path' in options ? options : undefined;
    this.#wanted = compileFilter(options.filter ?? '');
    this.#snapLen = snapLen;
    this.#wallMs = wallMs;
    this.#view = new DataView(this.#buffer.buffer);
    this.#fd = 'path' in options ? openTarget(options.path) : options.fd;
    if (this.#file?.rotateBytes !== undefined && fstatSync(this.#fd).isFIFO()) {
      closeSync(this.#fd);
      throw new DrydockError(
        'ERR_CAPTURE_OPTIONS',
        `${this.#file.path} is a pipe, which cannot be put aside when it is full. Capture without a size, or to a file.`,
      );
    }
    this.#putFileHeader();
  }

  get state(): CaptureState {
    return { ...this.counters, failed: this.#failed };
  }

  #putFileHeader(): void {
    const at = this.#length;
    this.#view.setUint32(at, MAGIC_MICROSECONDS, true);
    this.#view.setUint16(at + 4, 2, true);
    this.#view.setUint16(at + 6, 4, true);
    this.#view.setUint32(at + 8, 0, true);
    this.#view.setUint32(at + 12, 0, true);
    this.#view.setUint32(at + 16, this.#snapLen, true);
    this.#view.setUint32(at + 20, LINKTYPE_ETHERNET, true);
    this.#length += FILE_HEADER_LEN;
    this.#fileBytes += FILE_HEADER_LEN;
  }

  frame(
    head: Uint8Array,
    headOff: number,
    headLen: number,
    body: Uint8Array | undefined,
    bodyOff: number,
    bodyLen: number,
  ): void {
    if (this.#failed !== undefined || headLen + bodyLen > FRAME_BYTES_MAX) return;
    // The head holds all that a filter asks about.
    if (!this.#wanted(head, headOff + VNET_HDR_LEN, headOff + headLen)) return;
    const frame = this.#frame;
    frame.set(head.subarray(headOff, headOff + headLen));
    if (body && bodyLen > 0) frame.set(body.subarray(bodyOff, bodyOff + bodyLen), headLen);
    const end = headLen + bodyLen;
    completeChecksum(frame, end);
    const length = end - VNET_HDR_LEN;
    const kept = Math.min(length, this.#snapLen);
    if (this.#length + RECORD_HEADER_LEN + kept > BUFFER_BYTES) this.flush();
    if (this.#length + RECORD_HEADER_LEN + kept > BUFFER_BYTES) {
      this.counters.dropped++;
      return;
    }
    const at = this.#length;
    const wallMs = this.#wallMs();
    this.#view.setUint32(at, Math.floor(wallMs / 1000), true);
    this.#view.setUint32(at + 4, Math.floor((wallMs % 1000) * 1000), true);
    this.#view.setUint32(at + 8, kept, true);
    this.#view.setUint32(at + 12, length, true);
    this.#buffer.set(frame.subarray(VNET_HDR_LEN, VNET_HDR_LEN + kept), at + RECORD_HEADER_LEN);
    this.#length += RECORD_HEADER_LEN + kept;
    this.#fileBytes += RECORD_HEADER_LEN + kept;
    this.counters.frames++;
    const file = this.#file;
    if (file?.rotateBytes !== undefined && this.#fileBytes >= file.rotateBytes) this.#rotate(file);
  }

  /** Writes what has waited for a while. Called at every turn of the loop. */
  poll(now: number): void {
    if (now - this.#flushedMs < FLUSH_MS) return;
    this.#flushedMs = now;
    this.flush();
  }

  /** Writes what can be written without waiting. */
  flush(): void {
    if (this.#length === 0 || this.#failed !== undefined) return;
    try {
      const written = writeSync(this.#fd, this.#buffer, 0, this.#length);
      this.#buffer.copyWithin(0, written, this.#length);
      this.#length -= written;
    } catch (error) {
      if (errorCode(error) !== 'EAGAIN') this.#failed = errorCode(error) ?? 'EIO';
    }
  }

  #rotate({ path, files = 5 }: CaptureOptions): void {
    this.flush();
    try {
      for (let i = files - 1; i >= 0; i--) renameIfThere(i === 0 ? path : `${path}.${i}`, `${path}.${i + 1}`);
      const next = openTarget(path);
      closeSync(this.#fd);
      this.#fd = next;
    } catch (error) {
      // The network goes on without its capture.
      this.#failed = errorCode(error) ?? 'EIO';
      return;
    }
    this.#fileBytes = 0;
    this.#length = 0;
    this.#putFileHeader();
  }

  close(): void {
    this.flush();
    closeSync(this.#fd);
  }
}

function renameIfThere(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') throw error;
  }
}

/** A pipe is opened without waiting for its reader; a file is made anew. */
function openTarget(path: string): number {
  const { O_WRONLY, O_CREAT, O_TRUNC, O_NONBLOCK } = fsConstants;
  try {
    return openSync(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK, 0o600);
  } catch (error) {
    if (errorCode(error) !== 'ENXIO') throw error;
    throw new DrydockError(
      'ERR_CAPTURE_NO_READER',
      `Nobody reads the pipe ${path}. Start the reader first, such as \`wireshark -k -i ${path}\`.`,
      { cause: error },
    );
  }
}

/** Finishes a transport checksum that was left to the hardware; see link/link.ts. */
function completeChecksum(frame: Uint8Array, end: number): void {
  if ((frame[0]! & NEEDS_CSUM) === 0) return;
  const start = VNET_HDR_LEN + get16le(frame, 6);
  const at = start + get16le(frame, 8);
  // A super-frame's sum covers the pseudo header of the whole, which is what the reader sees.
  if (at + 2 <= end) put16(frame, at, complement(sum(frame, start, end - start)));
}
