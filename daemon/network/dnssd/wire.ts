/**
 * What Darwin's look-ups of names say to mDNSResponder over its socket, and hear from it (mDNSResponder-2600,
 * mDNSShared/dnssd_ipc.h and dnssd_clientstub.c). All numbers are big-endian; a message is a header and its data.
 *
 * A client that shares one connection among its questions sends, with the last byte of each, a socket on which it
 * hears whether the question was taken; its data then begin with an empty string.
 */

/** u32 version, datalen, ipc_flags, op; 8 bytes that belong to the client; u32 reg_index. */
export const HEADER_LEN = 28;
const VERSION = 1;
/** Longest data that a question can have: a name of kDNSServiceMaxDomainName bytes and what stands around it. */
export const DATA_BYTES_MAX = 4096;

/** Requests (request_op_t); all others are answered as not known. */
export const OP = { connection: 1, query: 8, addressInfo: 15, cancel: 63 } as const;
/** Replies (reply_op_t). */
const REPLY = { query: 68, addressInfo: 72 } as const;

/** DNSServiceErrorType. */
export const ERROR = { none: 0, badParameter: -65540, unsupported: -65544, noSuchRecord: -65554 } as const;
const FLAG_MORE_COMING = 1;
const FLAG_ADD = 2;
const PROTOCOL_IPV4 = 1;
const PROTOCOL_IPV6 = 2;
const TYPE_A = 1;
const TYPE_AAAA = 28;
const CLASS_IN = 1;

/** A message's head. */
export interface Header {
  dataLen: number;
  op: number;
  /** The client's own mark, which comes back with the answers. */
  context: bigint;
}

/** undefined for another version, or for more data than any question has. @param bytes HEADER_LEN of them */
export function parseHeader(bytes: Buffer): Header | undefined {
  const dataLen = bytes.readUInt32BE(4);
  if (bytes.readUInt32BE(0) !== VERSION || dataLen > DATA_BYTES_MAX) return undefined;
  return { dataLen, op: bytes.readUInt32BE(12), context: bytes.readBigUInt64BE(16) };
}

/** What somebody wants to know. */
export interface Question {
  op: typeof OP.query | typeof OP.addressInfo;
  context: bigint;
  name: string;
  /** Types of records; none that is known means that there is no such record. */
  types: number[];
  /** The type that was asked for, for the answer that there is none. */
  asked: number;
}

/** undefined for data that do not fit the request. @param shared whether an empty string comes first */
export function parseQuestion({ op, context }: Header, data: Buffer, shared: boolean): Question | undefined {
  if (op !== OP.query && op !== OP.addressInfo) return undefined;
  const at = shared ? 1 : 0;
  if (shared && data[0] !== 0) return undefined;
  // Flags, interface; with addrinfo a set of protocols too.
  const nameAt = at + (op === OP.addressInfo ? 12 : 8);
  const end = data.indexOf(0, nameAt);
  if (end < 0) return undefined;
  const name = data.toString('utf8', nameAt, end);
  if (op === OP.addressInfo) {
    const protocols = data.readUInt32BE(at + 8) || PROTOCOL_IPV4 | PROTOCOL_IPV6;
    const types = [
      ...(protocols & PROTOCOL_IPV4 ? [TYPE_A] : []),
      ...(protocols & PROTOCOL_IPV6 ? [TYPE_AAAA] : []),
    ];
    return types.length > 0 ? { op, context, name, types, asked: types[0]! } : undefined;
  }
  if (data.length < end + 5) return undefined;
  const asked = data.readUInt16BE(end + 1);
  const known = asked === TYPE_A || asked === TYPE_AAAA;
  return { op, context, name, types: known ? [asked] : [], asked };
}

/** A 32-bit error, as it is told at once. */
export function emitError(code: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(code);
  return bytes;
}

interface Answer {
  type: number;
  data: Uint8Array;
}

/** Messages that answer a question, the last of which says that there are no more. @param addresses of the name, in text */
export function emitAnswers(question: Question, addresses: readonly string[], ttlS: number): Buffer {
  const answers = addresses.flatMap((text): Answer[] => {
    const type = text.includes(':') ? TYPE_AAAA : TYPE_A;
    return question.types.includes(type) ? [{ type, data: addressBytes(text) }] : [];
  });
  if (answers.length === 0)
    return emitAnswer(
      question,
      { type: question.asked, data: new Uint8Array() },
      ERROR.noSuchRecord,
      0,
      false,
    );
  return Buffer.concat(
    answers.map((answer, index) =>
      emitAnswer(question, answer, ERROR.none, ttlS, index < answers.length - 1),
    ),
  );
}

function emitAnswer(
  { op, context, name }: Question,
  { type, data }: Answer,
  error: number,
  ttlS: number,
  more: boolean,
): Buffer {
  const fullName = Buffer.from(`${name.replace(/\.$/, '')}.\0`);
  const length = 12 + fullName.length + 6 + data.length + 4;
  const bytes = Buffer.alloc(HEADER_LEN + length);
  bytes.writeUInt32BE(VERSION, 0);
  bytes.writeUInt32BE(length, 4);
  bytes.writeUInt32BE(op === OP.query ? REPLY.query : REPLY.addressInfo, 12);
  bytes.writeBigUInt64BE(context, 16);
  bytes.writeUInt32BE(FLAG_ADD | (more ? FLAG_MORE_COMING : 0), HEADER_LEN);
  bytes.writeInt32BE(error, HEADER_LEN + 8);
  let at = HEADER_LEN + 12;
  at += fullName.copy(bytes, at);
  at = bytes.writeUInt16BE(type, at);
  at = bytes.writeUInt16BE(CLASS_IN, at);
  at = bytes.writeUInt16BE(data.length, at);
  bytes.set(data, at);
  bytes.writeUInt32BE(ttlS, at + data.length);
  return bytes;
}

/** An address in the order of the network. @param text of a valid address */
function addressBytes(text: string): Uint8Array {
  if (!text.includes(':')) return Uint8Array.from(text.split('.').map(Number));
  const [head = '', tail] = text.replace(/%.*$/, '').split('::');
  const groups = (part: string): number[] =>
    part
      .split(':')
      .filter(Boolean)
      .flatMap((group) => {
        if (!group.includes('.')) return [Number.parseInt(group, 16)];
        const [a = 0, b = 0, c = 0, d = 0] = group.split('.').map(Number);
        return [a * 256 + b, c * 256 + d];
      });
  const before = groups(head);
  const after = tail === undefined ? [] : groups(tail);
  const all = [...before, ...Array<number>(8 - before.length - after.length).fill(0), ...after];
  return Uint8Array.from(all.flatMap((group) => [group >> 8, group & 0xff]));
}
