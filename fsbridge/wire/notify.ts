/**
 * Messages that the server sends on its own: the header of a reply with the code in place of the error, and 0 in place
 * of the request's number (enum fuse_notify_code).
 */
import { OUT_HEADER_BYTES } from './request.ts';
import { putUint64 } from './stat.ts';

const INVAL_INODE = 2;
const INVAL_ENTRY = 3;
const INC_EPOCH = 8;
const BODY = OUT_HEADER_BYTES >> 2;

function header(words: Uint32Array, code: number, bodyBytes: number): number {
  words[0] = OUT_HEADER_BYTES + bodyBytes;
  words[1] = code;
  words[2] = 0;
  words[3] = 0;
  return OUT_HEADER_BYTES + bodyBytes;
}

/** What the kernel knows of a node, attributes and data, is out of date. */
export function putInvalInode(words: Uint32Array, nodeId: number): number {
  words.fill(0, BODY, BODY + 6);
  putUint64(words, BODY, nodeId);
  return header(words, INVAL_INODE, 24);
}

/** A name, or that there is none, is out of date. `bytes` are those of `words`. */
export function putInvalEntry(words: Uint32Array, bytes: Buffer, parentId: number, name: string): number {
  putUint64(words, BODY, parentId);
  words[BODY + 2] = name.length;
  words[BODY + 3] = 0;
  const at = OUT_HEADER_BYTES + 16;
  bytes[at + bytes.write(name, at, 'latin1')] = 0;
  return header(words, INVAL_ENTRY, 16 + name.length + 1);
}

/** All names are out of date (since version 7.44). */
export function putIncEpoch(words: Uint32Array): number {
  return header(words, INC_EPOCH, 0);
}
