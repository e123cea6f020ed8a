/** What some peers say before the first frame: machines that eat bytes and may answer, without I/O. */

/** Outcome of giving a preamble what has come so far. */
export type PreambleStep =
  | { state: 'more'; consumed: number; reply?: Uint8Array }
  /** Frames follow what was consumed. */
  | { state: 'done'; consumed: number; reply?: Uint8Array }
  | { state: 'refused'; consumed: number; reply?: Uint8Array; detail: string };

/** A preamble in progress. */
export interface Preamble {
  /** Looks at bytes from `off` to `end`. Bytes that were not consumed are shown again with what follows. */
  receive(buf: Uint8Array, off: number, end: number): PreambleStep;
}

/** Longest head of a `POST /connect` request. */
const HTTP_HEAD_BYTES_MAX = 8192;

/**
 * gvproxy's `POST /connect`: the request is hijacked and not answered (gvisor-tap-vsock, pkg/virtualnetwork/mux.go);
 * the next byte is the first of a frame.
 */
export function httpConnectPreamble(): Preamble {
  return {
    receive(buf, off, end) {
      const head = new TextDecoder('latin1').decode(
        buf.subarray(off, Math.min(end, off + HTTP_HEAD_BYTES_MAX)),
      );
      const blank = head.indexOf('\r\n\r\n');
      if (blank < 0) {
        if (end - off >= HTTP_HEAD_BYTES_MAX)
          return { state: 'refused', consumed: 0, detail: 'the head of the HTTP request is too long' };
        return { state: 'more', consumed: 0 };
      }
      const consumed = blank + 4;
      if (!/^POST \/connect(\?\S*)? HTTP\/1\.[01]\r\n/.test(head)) {
        const reply = new TextEncoder().encode(
          'HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n',
        );
        return { state: 'refused', consumed, reply, detail: 'the request is not POST /connect' };
      }
      if (/^content-length:\s*[1-9]/im.test(head))
        return { state: 'refused', consumed, detail: 'POST /connect came with a body' };
      return { state: 'done', consumed };
    },
  };
}
