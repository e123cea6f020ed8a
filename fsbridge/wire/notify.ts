/**
 * Messages that the server sends on its own: the header of a reply with the code in place of the error, and 0 in place
 * of the request's number (enum fuse_notify_code).
 */
import { OUT_HEADER_BYTES } from './request.ts';
import { putUint64 } from './stat.ts';

const RETRIEVE = 5;
const BODY = OUT_HEADER_BYTES >> 2;

function header(words: Uint32Array, code: number, bodyBytes: number): number {
  words[0] = OUT_HEADER_BYTES + bodyBytes;
  words[1] = code;
  words[2] = 0;
  words[3] = 0;
  return OUT_HEADER_BYTES + bodyBytes;
}

/** Asks the kernel for nothing of a file, for which it sends a request (NOTIFY_REPLY): a knock on the server's door. */
export function putKnock(words: Uint32Array, nodeId: number): number {
  words.fill(0, BODY, BODY + 8);
  putUint64(words, BODY + 2, nodeId);
  return header(words, RETRIEVE, 32);
}
