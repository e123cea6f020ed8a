/** Events of fanotify(7) as bytes: struct fanotify_event_metadata, then information records. */

/** A change that some thread of the host made in a folder. */
export interface HostEvent {
  /** FAN_* bits; several when the kernel merged changes of one name. */
  mask: number;
  /** Thread that did it. */
  tid: number;
  /** File system and handle of the folder, and the name in it; of a rename the old ones. */
  dir: string;
  name: string;
  /** Of a rename the new ones, where that folder is watched. */
  toDir: string | undefined;
  toName: string;
}

const METADATA_BYTES = 24;
const INFO_DFID_NAME = 2;
const INFO_OLD_DFID_NAME = 10;
const INFO_NEW_DFID_NAME = 12;
const FSID_BYTES = 8;

/** Takes whole events from `bytes`; what it can't understand is left out. */
export function parseEvents(bytes: Buffer): HostEvent[] {
  const events: HostEvent[] = [];
  for (let at = 0; at + METADATA_BYTES <= bytes.length; ) {
    const length = bytes.readUInt32LE(at);
    if (length < METADATA_BYTES || at + length > bytes.length) break;
    // Bits above 31 don't occur among those we ask for.
    const event: HostEvent = {
      mask: bytes.readUInt32LE(at + 8),
      tid: bytes.readInt32LE(at + 20),
      dir: '',
      name: '',
      toDir: undefined,
      toName: '',
    };
    readRecords(bytes, at + bytes.readUInt16LE(at + 6), at + length, event);
    events.push(event);
    at += length;
  }
  return events;
}

/** Moves the events of other threads than `tid` to the front of `bytes`; how many bytes they are. */
export function withoutThread(bytes: Buffer, tid: number): number {
  let kept = 0;
  for (let at = 0; at + METADATA_BYTES <= bytes.length; ) {
    const length = bytes.readUInt32LE(at);
    if (length < METADATA_BYTES || at + length > bytes.length) break;
    if (bytes.readInt32LE(at + 20) !== tid) {
      if (kept !== at) bytes.copyWithin(kept, at, at + length);
      kept += length;
    }
    at += length;
  }
  return kept;
}

/** struct fanotify_event_info_fid: type, padding, length, fsid, struct file_handle {bytes, type, data}, name. */
function readRecords(bytes: Buffer, start: number, end: number, event: HostEvent): void {
  for (let at = start; at + 20 <= end; ) {
    const type = bytes[at]!;
    const length = bytes.readUInt16LE(at + 2);
    if (length < 20 || at + length > end) return;
    const handleAt = at + 4 + FSID_BYTES;
    const nameAt = handleAt + 8 + bytes.readUInt32LE(handleAt);
    if (nameAt <= at + length) {
      const dir = bytes.toString('latin1', at + 4, handleAt) + bytes.toString('latin1', handleAt + 4, nameAt);
      const nameEnd = bytes.indexOf(0, nameAt);
      const name = bytes.toString('latin1', nameAt, nameEnd < 0 ? nameAt : Math.min(nameEnd, at + length));
      if (type === INFO_DFID_NAME || type === INFO_OLD_DFID_NAME) {
        event.dir = dir;
        event.name = name;
      } else if (type === INFO_NEW_DFID_NAME) {
        event.toDir = dir;
        event.toName = name;
      }
    }
    at += length;
  }
}
