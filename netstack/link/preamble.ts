/** What some peers say before the first frame: machines that eat bytes and may answer, without I/O. */

import { putMac } from '../wire/address.ts';

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

// VPNKit's link protocol (moby/vpnkit src/hostnet/vmnet.ml), all integers little-endian.
const VMNET_MAGIC = 'VMN3T';
const VMNET_VERSION = 22;
const VMNET_INIT_LEN = 49;
const VMNET_COMMAND_LEN = 41;
const VMNET_RESPONSE_LEN = 258;
const UUID_LEN = 36;
const COMMAND_ETHERNET = 1;
const COMMAND_BIND_IPV4 = 6;
const COMMAND_PREFERRED_IPV4 = 8;
const RESPONSE_VIF = 1;
const RESPONSE_DISCONNECT = 2;
const VMNET_HEADROOM = 50;
/** What we call ourselves where vpnkit puts a commit: 40 characters. */
const VMNET_COMMIT = 'drydock'.padEnd(40, '-');

/** Who may join by VPNKit's handshake. */
export interface VmnetRegistry {
  /**
   * The MAC address for a machine that calls itself `uuid` (empty: it has no name) and wishes for an address. The same
   * machine gets the same again. A string is why not.
   */
  admit(uuid: string, preferredIpv4: number | undefined): number | string;
}

/** The server's side of VPNKit's handshake, after which frames follow in LE16 framing. */
export function vmnetPreamble(registry: VmnetRegistry, mtuBytes: number): Preamble {
  let greeted = false;
  return {
    receive(buf, off, end) {
      if (!greeted) {
        if (end - off < VMNET_INIT_LEN) return { state: 'more', consumed: 0 };
        const reply = vmnetInit();
        const consumed = VMNET_INIT_LEN;
        const view = new DataView(buf.buffer, buf.byteOffset + off, VMNET_INIT_LEN);
        if (new TextDecoder('latin1').decode(buf.subarray(off, off + 5)) !== VMNET_MAGIC)
          return { state: 'refused', consumed, detail: 'the peer does not speak VMN3T' };
        const version = view.getUint32(5, true);
        if (version !== VMNET_VERSION)
          return {
            state: 'refused',
            consumed,
            reply,
            detail: `VMN3T version ${version}, not ${VMNET_VERSION}`,
          };
        greeted = true;
        return { state: 'more', consumed, reply };
      }
      if (end - off < VMNET_COMMAND_LEN) return { state: 'more', consumed: 0 };
      return vmnetCommand(registry, mtuBytes, buf, off);
    },
  };
}

function vmnetInit(): Uint8Array {
  const init = new Uint8Array(VMNET_INIT_LEN);
  const text = new TextEncoder();
  init.set(text.encode(VMNET_MAGIC));
  new DataView(init.buffer).setUint32(5, VMNET_VERSION, true);
  init.set(text.encode(VMNET_COMMIT), 9);
  return init;
}

function vmnetCommand(registry: VmnetRegistry, mtuBytes: number, buf: Uint8Array, off: number): PreambleStep {
  const consumed = VMNET_COMMAND_LEN;
  const command = buf[off]!;
  if (command !== COMMAND_ETHERNET && command !== COMMAND_PREFERRED_IPV4) {
    const name = command === COMMAND_BIND_IPV4 ? 'Bind_ipv4' : `${command}`;
    return vmnetDisconnect(`Unsupported command ${name}`);
  }
  const uuid = new TextDecoder('latin1')
    .decode(buf.subarray(off + 1, off + 1 + UUID_LEN))
    .replaceAll('\0', '');
  const view = new DataView(buf.buffer, buf.byteOffset + off + 1 + UUID_LEN, 4);
  const preferred = command === COMMAND_PREFERRED_IPV4 ? view.getUint32(0, true) : undefined;
  const mac = registry.admit(uuid, preferred);
  if (typeof mac === 'string') return vmnetDisconnect(mac);
  const reply = new Uint8Array(VMNET_RESPONSE_LEN);
  const out = new DataView(reply.buffer);
  reply[0] = RESPONSE_VIF;
  out.setUint16(1, mtuBytes, true);
  out.setUint16(3, mtuBytes + VMNET_HEADROOM, true);
  putMac(reply, 5, mac);
  return { state: 'done', consumed, reply };
}

function vmnetDisconnect(text: string): PreambleStep {
  const reply = new Uint8Array(VMNET_RESPONSE_LEN);
  const message = new TextEncoder().encode(text).subarray(0, 255);
  reply[0] = RESPONSE_DISCONNECT;
  reply[1] = message.length;
  reply.set(message, 2);
  return { state: 'refused', consumed: VMNET_COMMAND_LEN, reply, detail: text };
}
