import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import * as socket from '#common/native/socket';
import { Poller } from '../host/poller.ts';
import { VNET_HDR_LEN } from './link.ts';
import { httpConnectPreamble, type Preamble } from './preamble.ts';
import { type Framing, LE16_FRAMING, QEMU_FRAMING, type StreamEnd, StreamLink } from './stream.ts';

let poller: Poller;
let peer: number;
let ends: StreamEnd[];
let frames: Uint8Array[];
const links: StreamLink[] = [];

beforeEach(() => {
  poller = new Poller();
  ends = [];
  frames = [];
});

afterEach(() => {
  for (const link of links.splice(0)) link.close();
  socket.close(peer);
  poller.close();
});

function open(framing: Framing, preamble?: Preamble): StreamLink {
  const [ours, theirs] = socket.socketPair();
  peer = theirs;
  const link = new StreamLink({
    poller,
    framing,
    readFd: ours,
    writeFd: ours,
    mtuBytes: 1500,
    ended: (end) => ends.push(end),
    ...(preamble && { preamble }),
  });
  link.start({ frame: (buf, off, end) => frames.push(buf.slice(off, end)) });
  links.push(link);
  return link;
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 5000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error('the awaited condition did not come about');
    poller.wait(1);
    poller.dispatch();
    await turn();
  }
}

function settle(): void {
  for (let i = 0; i < 3; i++) {
    poller.wait(0);
    poller.dispatch();
  }
}

const say = (bytes: Uint8Array): number => socket.send(peer, bytes, 0, bytes.length);

/** All that the peer can read now. */
function hear(): Buffer {
  const parts: Buffer[] = [];
  const buf = new Uint8Array(65536);
  for (;;) {
    const count = socket.receive(peer, buf, 0, buf.length);
    if (count <= 0) return Buffer.concat(parts);
    parts.push(Buffer.from(buf.subarray(0, count)));
  }
}

const pattern = (length: number, seed: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => (i + seed) & 255);

function framed(framing: Framing, ...payloads: Uint8Array[]): Uint8Array {
  return Buffer.concat(
    payloads.map((payload) => {
      const header = new Uint8Array(framing.headerLen);
      framing.writeLength(header, 0, payload.length);
      return Buffer.concat([header, payload]);
    }),
  );
}

describe.each([QEMU_FRAMING, LE16_FRAMING])('$name framing', (framing) => {
  test('hands out frames with an empty virtio_net_hdr, however the stream is cut', async () => {
    open(framing);
    const payloads = [pattern(14, 1), pattern(60, 2), pattern(1514, 3), pattern(65000, 4)];
    const stream = framed(framing, ...payloads);
    let at = 0;
    for (let step = 1; at < stream.length; step += 997) {
      say(stream.subarray(at, at + step));
      at += step;
      settle();
    }
    await until(() => frames.length === payloads.length);
    for (const [index, frame] of frames.entries()) {
      expect([...frame.subarray(0, VNET_HDR_LEN)]).toEqual(new Array(VNET_HDR_LEN).fill(0));
      expect(Buffer.from(frame.subarray(VNET_HDR_LEN)).equals(payloads[index]!)).toBe(true);
    }
  });

  test('sends what was gathered with one flush, heads and bodies joined', () => {
    const link = open(framing);
    const head = pattern(VNET_HDR_LEN + 54, 9);
    const body = pattern(1000, 5);
    expect(link.send(head, 0, head.length, body, 10, 900)).toBe(true);
    expect(link.send(head, 0, head.length, undefined, 0, 0)).toBe(true);
    expect(hear()).toHaveLength(0);
    link.flush();
    const plain = head.subarray(VNET_HDR_LEN);
    const expected = framed(framing, Buffer.concat([plain, body.subarray(10, 910)]), plain);
    expect(hear().equals(expected)).toBe(true);
  });

  test('ignores runts and ends when the peer goes', async () => {
    open(framing);
    say(framed(framing, pattern(13, 1), pattern(0, 1), pattern(20, 7)));
    await until(() => frames.length === 1);
    expect(frames[0]).toHaveLength(VNET_HDR_LEN + 20);
    socket.shutdownWrite(peer);
    await until(() => ends.length === 1);
    expect(ends).toEqual([{ reason: 'closed' }]);
  });
});

test('a frame longer than any can be ends the link', async () => {
  open(QEMU_FRAMING);
  say(Uint8Array.of(0x47, 0x45, 0x54, 0x20));
  await until(() => ends.length === 1);
  expect(ends[0]).toMatchObject({ reason: 'protocol' });
});

test('a peer that does not read loses frames; what was begun is finished when it reads again', async () => {
  const link = open(QEMU_FRAMING);
  const frame = new Uint8Array(VNET_HDR_LEN + 1500).fill(7);
  let taken = 0;
  let refused = 0;
  for (let i = 0; i < 2000; i++) {
    if (link.send(frame, 0, frame.length, undefined, 0, 0)) taken++;
    else refused++;
    link.flush();
  }
  expect(refused).toBeGreaterThan(0);
  let heard = 0;
  await until(() => {
    heard += hear().length;
    return heard === taken * 1504;
  });
  expect(link.send(frame, 0, frame.length, undefined, 0, 0)).toBe(true);
});

describe('after POST /connect', () => {
  test('frames follow the request at once, and nothing is answered', async () => {
    open(LE16_FRAMING, httpConnectPreamble());
    const head = Buffer.from('POST /connect HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n\r\n');
    say(head.subarray(0, 20));
    settle();
    say(Buffer.concat([head.subarray(20), framed(LE16_FRAMING, pattern(60, 1))]));
    await until(() => frames.length === 1);
    expect(hear()).toHaveLength(0);
  });

  test('another request is answered with 404 and ended', async () => {
    open(LE16_FRAMING, httpConnectPreamble());
    say(Buffer.from('GET /stats HTTP/1.1\r\nHost: x\r\n\r\n'));
    await until(() => ends.length === 1);
    expect(hear().toString()).toMatch(/^HTTP\/1\.1 404 /);
    expect(ends[0]).toMatchObject({ reason: 'protocol' });
  });

  test('a head without end is refused', async () => {
    open(LE16_FRAMING, httpConnectPreamble());
    say(Buffer.alloc(9000, 'a'));
    await until(() => ends.length === 1);
    expect(ends[0]).toMatchObject({ reason: 'protocol' });
  });
});
