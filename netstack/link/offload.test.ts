import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { inputs } from '../../test/support/fuzz/inputs.ts';
import { get16, get32, put16, put32 } from '../wire/address.ts';
import { type Link, VNET_HDR_LEN } from './link.ts';
import { SoftwareOffload } from './offload.ts';

const IP = VNET_HDR_LEN + 14;

/** A link that keeps what it is given. */
function collect(mtuBytes = 1500): { link: Link; frames: Uint8Array[] } {
  const frames: Uint8Array[] = [];
  const link: Link = {
    mtuBytes,
    offload: false,
    send(head, headOff, headLen, body, bodyOff, bodyLen) {
      const frame = new Uint8Array(headLen + bodyLen);
      frame.set(head.subarray(headOff, headOff + headLen));
      if (body) frame.set(body.subarray(bodyOff, bodyOff + bodyLen), headLen);
      frames.push(frame);
      return true;
    },
    flush() {},
    start() {},
    close() {},
  };
  return { link, frames };
}

/** The Internet checksum the slow way (RFC 1071), as a second opinion. Zero for bytes whose checksum is right. */
function residue(bytes: Uint8Array, initial = 0): number {
  let sum = initial;
  for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i]! << 8) + (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

function transportResidue(frame: Uint8Array, ipv6: boolean): number {
  const transport = IP + (ipv6 ? 40 : 20);
  const addresses = ipv6 ? frame.subarray(IP + 8, IP + 40) : frame.subarray(IP + 12, IP + 20);
  const length = frame.length - transport;
  const protocol = ipv6 ? frame[IP + 6]! : frame[IP + 9]!;
  const pseudo = new Uint8Array(addresses.length + 4);
  pseudo.set(addresses);
  put16(pseudo, addresses.length, protocol);
  put16(pseudo, addresses.length + 2, length);
  let sum = 0;
  for (let i = 0; i < pseudo.length; i += 2) sum += get16(pseudo, i);
  return residue(frame.subarray(transport), sum);
}

/** A super-frame as a TAP gives it: `gsoSize` 0 makes a plain frame whose checksum is incomplete. */
function superFrame(options: {
  protocol: 'tcp' | 'udp';
  ipv6?: boolean;
  payload: Uint8Array;
  gsoSize: number;
  flags?: number;
  optionsLen?: number;
}): Uint8Array {
  const { payload, ipv6 = false, protocol } = options;
  const ipLen = ipv6 ? 40 : 20;
  const headerLen = protocol === 'tcp' ? 20 + (options.optionsLen ?? 0) : 8;
  const transport = IP + ipLen;
  const frame = new Uint8Array(transport + headerLen + payload.length);
  frame[0] = 1;
  if (options.gsoSize > 0) frame[1] = protocol === 'udp' ? 5 : ipv6 ? 4 : 1;
  new DataView(frame.buffer).setUint16(4, options.gsoSize, true);
  new DataView(frame.buffer).setUint16(6, transport - VNET_HDR_LEN, true);
  new DataView(frame.buffer).setUint16(8, protocol === 'tcp' ? 16 : 6, true);
  put16(frame, VNET_HDR_LEN + 12, ipv6 ? 0x86dd : 0x0800);
  if (ipv6) {
    frame[IP] = 0x60;
    put16(frame, IP + 4, headerLen + payload.length);
    frame[IP + 6] = protocol === 'tcp' ? 6 : 17;
    for (let i = 0; i < 32; i++) frame[IP + 8 + i] = i * 7 + 1;
  } else {
    frame[IP] = 0x45;
    put16(frame, IP + 2, Math.min(0xffff, ipLen + headerLen + payload.length));
    put16(frame, IP + 4, 0xfffe);
    frame[IP + 9] = protocol === 'tcp' ? 6 : 17;
    put32(frame, IP + 12, 0xac110002);
    put32(frame, IP + 16, 0x08080808);
    put16(frame, IP + 10, residue(frame.subarray(IP, IP + 20)));
  }
  put16(frame, transport, 40000);
  put16(frame, transport + 2, 443);
  if (protocol === 'tcp') {
    put32(frame, transport + 4, 0xffffff00);
    frame[transport + 12] = (headerLen / 4) << 4;
    frame[transport + 13] = options.flags ?? 0x10;
  } else put16(frame, transport + 4, 8 + payload.length);
  // The stored value is the folded sum of the pseudo header, not complemented.
  const at = transport + (protocol === 'tcp' ? 16 : 6);
  const addresses = ipv6 ? frame.subarray(IP + 8, IP + 40) : frame.subarray(IP + 12, IP + 20);
  let sum = (protocol === 'tcp' ? 6 : 17) + headerLen + payload.length;
  for (let i = 0; i < addresses.length; i += 2) sum += get16(addresses, i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  put16(frame, at, sum);
  frame.set(payload, transport + headerLen);
  return frame;
}

const bytes = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => (i * 31 + 7) & 255);

function run(frame: Uint8Array, split = frame.length): Uint8Array[] {
  const { link, frames } = collect();
  const offload = new SoftwareOffload(link);
  expect(
    offload.send(frame, 0, split, split < frame.length ? frame : undefined, split, frame.length - split),
  ).toBe(true);
  return frames;
}

describe('software offload', () => {
  test('passes a plain frame untouched', () => {
    const frame = superFrame({ protocol: 'tcp', payload: bytes(10), gsoSize: 0 });
    frame.fill(0, 0, VNET_HDR_LEN);
    expect(run(frame)).toEqual([frame]);
  });

  test.each([
    ['TCP over IPv4', 'tcp', false],
    ['TCP over IPv6', 'tcp', true],
    ['UDP over IPv4', 'udp', false],
    ['UDP over IPv6', 'udp', true],
  ] as const)('completes the checksum of %s', (_name, protocol, ipv6) => {
    const [frame] = run(superFrame({ protocol, ipv6, payload: bytes(101), gsoSize: 0 }), 60);
    expect(transportResidue(frame!, ipv6)).toBe(0);
    expect([...frame!.subarray(0, VNET_HDR_LEN)]).toEqual(new Array(VNET_HDR_LEN).fill(0));
  });

  test('cuts TCP: sequence numbers, identifications and lengths advance; FIN and PSH come last, CWR first', () => {
    const flags = 0x80 | 0x10 | 0x08 | 0x01;
    const frames = run(
      superFrame({ protocol: 'tcp', payload: bytes(3001), gsoSize: 1448, flags, optionsLen: 12 }),
    );
    const transport = IP + 20;
    expect(frames.map((frame) => frame.length - transport - 32)).toEqual([1448, 1448, 105]);
    expect(frames.map((frame) => get32(frame, transport + 4))).toEqual([0xffffff00, 0x4a8, 0xa50]);
    expect(frames.map((frame) => frame[transport + 13])).toEqual([0x90, 0x10, 0x19]);
    expect(frames.map((frame) => get16(frame, IP + 4))).toEqual([0xfffe, 0xffff, 0]);
    expect(frames.map((frame) => get16(frame, IP + 2))).toEqual(frames.map((frame) => frame.length - IP));
    for (const frame of frames) {
      expect(residue(frame.subarray(IP, IP + 20))).toBe(0);
      expect(transportResidue(frame, false)).toBe(0);
    }
  });

  test('cuts UDP into datagrams', () => {
    const frames = run(superFrame({ protocol: 'udp', payload: bytes(250), gsoSize: 100 }));
    expect(frames.map((frame) => get16(frame, IP + 24))).toEqual([108, 108, 58]);
    for (const frame of frames) expect(transportResidue(frame, false)).toBe(0);
  });

  test('a whole payload arrives, whatever its length, segment size and split into head and body', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 20_000 }),
        fc.integer({ min: 536, max: 9000 }),
        fc.boolean(),
        fc.constantFrom('tcp', 'udp'),
        fc.integer({ min: 54, max: 70 }),
        (length, gsoSize, ipv6, protocol, split) => {
          const payload = bytes(length);
          const whole = superFrame({ protocol, ipv6, payload, gsoSize });
          const frames = run(whole, Math.min(split, whole.length));
          const header = IP + (ipv6 ? 40 : 20) + (protocol === 'tcp' ? 20 : 8);
          const joined = frames.flatMap((frame) => [...frame.subarray(header)]);
          expect(Buffer.from(joined).equals(payload)).toBe(true);
          for (const frame of frames) expect(transportResidue(frame, ipv6)).toBe(0);
        },
      ),
      { numRuns: inputs(60) },
    );
  });

  test('never throws on a hostile header', () => {
    const { link } = collect();
    const offload = new SoftwareOffload(link);
    fc.assert(
      fc.property(fc.uint8Array({ minLength: VNET_HDR_LEN + 14, maxLength: 200 }), (frame) => {
        offload.send(frame, 0, frame.length, undefined, 0, 0);
      }),
    );
  });
});
