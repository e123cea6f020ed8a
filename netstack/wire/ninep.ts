/**
 * 9P2000, the protocol of Plan 9's file servers (section 5 of the Plan 9 manual, intro(5) and the pages of the messages), as
 * far as a server needs it: requests are parsed, answers are emitted. Integers are little-endian; strings have a length of
 * two bytes before them.
 */

/** Message types; the answer to a request has the next number. */
export const NINEP = {
  version: 100,
  auth: 102,
  attach: 104,
  error: 107,
  flush: 108,
  walk: 110,
  open: 112,
  create: 114,
  read: 116,
  write: 118,
  clunk: 120,
  remove: 122,
  stat: 124,
  wstat: 126,
} as const;

/** Size, type and tag. */
export const NINEP_HEADER_LEN = 7;
/** What surrounds the data of a read or write at most (IOHDRSZ of the manual). */
export const NINEP_IO_HEADER_LEN = 24;
/** Most names of one walk (MAXWELEM). */
export const NINEP_WALK_MAX = 16;
/** The bit of a permission, and of a qid's type in the high byte, that says folder. */
export const NINEP_FOLDER = 0x8000_0000;

/** What a server knows a file by. */
export interface Qid {
  isFolder: boolean;
  path: number;
}

/** A request in parts; which are set depends on the type. */
export interface NinepRequest {
  type: number;
  tag: number;
  fid: number;
  newFid: number;
  /** Version of a version request, or the name of a file to be made. */
  name: string;
  names: string[];
  /** Largest message, of a version request. */
  sizeMax: number;
  perm: number;
  mode: number;
  offset: number;
  count: number;
  data: Uint8Array;
}

const NO_DATA = new Uint8Array(0);
/** Fids of messages that have none. */
const NO_FID = 0xffff_ffff;

/** Reads a message's fields in order; what is beyond its end makes `isShort`. */
class Reader {
  isShort = false;
  readonly #buf: Uint8Array;
  readonly #end: number;
  #at: number;

  constructor(buf: Uint8Array, off: number, end: number) {
    this.#buf = buf;
    this.#at = off;
    this.#end = end;
  }

  #skip(len: number): number {
    const at = this.#at;
    if (len > this.#end - at) {
      this.isShort = true;
      return -1;
    }
    this.#at += len;
    return at;
  }

  number(bytes: 1 | 2 | 4 | 8): number {
    const at = this.#skip(bytes);
    let value = 0;
    if (at >= 0) for (let i = bytes - 1; i >= 0; i--) value = value * 256 + this.#buf[at + i]!;
    return value;
  }

  bytes(len: number): Uint8Array {
    const at = this.#skip(len);
    return at < 0 ? NO_DATA : this.#buf.subarray(at, at + len);
  }

  text(): string {
    return new TextDecoder().decode(this.bytes(this.number(2)));
  }
}

/** Reads the request at `off` to `end`; undefined for one that is malformed. Its data is a view. */
export function parseNinep(buf: Uint8Array, off: number, end: number): NinepRequest | undefined {
  const reader = new Reader(buf, off + 4, end);
  const request: NinepRequest = {
    type: reader.number(1),
    tag: reader.number(2),
    fid: NO_FID,
    newFid: NO_FID,
    name: '',
    names: [],
    sizeMax: 0,
    perm: 0,
    mode: 0,
    offset: 0,
    count: 0,
    data: NO_DATA,
  };
  readBody(reader, request);
  return reader.isShort || request.names.length > NINEP_WALK_MAX ? undefined : request;
}

function readBody(reader: Reader, request: NinepRequest): void {
  switch (request.type) {
    case NINEP.version:
      request.sizeMax = reader.number(4);
      request.name = reader.text();
      return;
    case NINEP.flush:
      reader.number(2);
      return;
    case NINEP.walk: {
      request.fid = reader.number(4);
      request.newFid = reader.number(4);
      const count = reader.number(2);
      for (let i = 0; i < count && !reader.isShort && i <= NINEP_WALK_MAX; i++)
        request.names.push(reader.text());
      return;
    }
    case NINEP.create:
      request.fid = reader.number(4);
      request.name = reader.text();
      request.perm = reader.number(4);
      request.mode = reader.number(1);
      return;
    case NINEP.open:
      request.fid = reader.number(4);
      request.mode = reader.number(1);
      return;
    case NINEP.read:
    case NINEP.write:
      request.fid = reader.number(4);
      request.offset = reader.number(8);
      request.count = reader.number(4);
      if (request.type === NINEP.write) request.data = reader.bytes(request.count);
      return;
    case NINEP.attach:
    case NINEP.clunk:
    case NINEP.remove:
    case NINEP.stat:
    case NINEP.wstat:
      request.fid = reader.number(4);
  }
}

/** One field of an answer: a number and its bytes, a text, a qid, or bytes as they are. */
type Field = [value: number, bytes: 1 | 2 | 4 | 8] | string | Qid | Uint8Array;

/** An answer of this type, with its size and tag. */
export function emitNinep(type: number, tag: number, ...fields: Field[]): Uint8Array {
  const body = fields.map(fieldBytes);
  const size = body.reduce((sum, { length }) => sum + length, NINEP_HEADER_LEN);
  return join([...[[size, 4] as Field, [type, 1] as Field, [tag, 2] as Field].map(fieldBytes), ...body]);
}

function join(parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function fieldBytes(field: Field): Uint8Array {
  if (field instanceof Uint8Array) return field;
  if (typeof field === 'string') {
    const text = new TextEncoder().encode(field);
    return join([fieldBytes([text.length, 2]), text]);
  }
  if (Array.isArray(field)) {
    const bytes = new Uint8Array(field[1]);
    for (let i = 0, left = field[0]; i < bytes.length; i++, left = Math.floor(left / 256))
      bytes[i] = left % 256;
    return bytes;
  }
  // A qid: type, version, path.
  return join(
    [[field.isFolder ? 0x80 : 0, 1] as Field, [0, 4] as Field, [field.path, 8] as Field].map(fieldBytes),
  );
}

/** What is told of a file (stat(5)): times are seconds, the permission's high bit says folder. */
export interface NinepStat {
  qid: Qid;
  perm: number;
  mtime: number;
  length: number;
  name: string;
  owner: string;
}

/** A file's entry, as in the data of a folder and, with a length before it, in the answer to a stat. */
export function emitStat({ qid, perm, mtime, length, name, owner }: NinepStat): Uint8Array {
  const fields: Field[] = [
    [0, 2],
    [0, 4],
    qid,
    [perm, 4],
    [mtime, 4],
    [mtime, 4],
    [length, 8],
    name,
    owner,
    owner,
    owner,
  ];
  const body = join(fields.map(fieldBytes));
  return join([fieldBytes([body.length, 2]), body]);
}
