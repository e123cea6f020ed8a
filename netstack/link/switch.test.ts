import { describe, expect, test } from 'vitest';
import { parseIpv4, parseMac, put16, put32, putMac } from '../wire/address.ts';
import { type FrameSink, type Link, VNET_HDR_LEN } from './link.ts';
import { type SourceGuard, Switch } from './switch.ts';

const GATEWAY = parseMac('02:42:ac:11:00:01')!;
const A = parseMac('02:42:ac:11:00:02')!;
const B = parseMac('02:42:ac:11:00:03')!;
const STRANGER = parseMac('02:00:00:00:00:99')!;
const BROADCAST = parseMac('ff:ff:ff:ff:ff:ff')!;
const A_IP = parseIpv4('172.17.0.2')!;
const B_IP = parseIpv4('172.17.0.3')!;
const GATEWAY_IP = parseIpv4('172.17.0.1')!;

/** A link whose far end the test plays. */
class TestLink implements Link {
  readonly mtuBytes: number;
  readonly offload = true;
  readonly got: Uint8Array[] = [];
  reading = true;
  flushes = 0;
  closed = false;
  #sink: FrameSink | undefined;

  constructor(mtuBytes = 1500) {
    this.mtuBytes = mtuBytes;
  }

  start(sink: FrameSink): void {
    this.#sink = sink;
  }

  send(
    head: Uint8Array,
    headOff: number,
    headLen: number,
    body: Uint8Array | undefined,
    bodyOff: number,
    bodyLen: number,
  ): boolean {
    if (!this.reading) return false;
    const frame = new Uint8Array(headLen + bodyLen);
    frame.set(head.subarray(headOff, headOff + headLen));
    if (body) frame.set(body.subarray(bodyOff, bodyOff + bodyLen), headLen);
    this.got.push(frame);
    return true;
  }

  flush(): void {
    this.flushes++;
  }

  close(): void {
    this.closed = true;
  }

  /** The far end sends. */
  inject(frame: Uint8Array): void {
    this.#sink!.frame(frame, 0, frame.length);
  }
}

function ipv4Frame(from: number, to: number, source: number, payloadLen = 20): Uint8Array {
  const frame = new Uint8Array(VNET_HDR_LEN + 14 + 20 + payloadLen);
  putMac(frame, VNET_HDR_LEN, to);
  putMac(frame, VNET_HDR_LEN + 6, from);
  put16(frame, VNET_HDR_LEN + 12, 0x0800);
  frame[VNET_HDR_LEN + 14] = 0x45;
  put32(frame, VNET_HDR_LEN + 14 + 12, source);
  return frame;
}

function arpFrame(from: number, senderMac: number, senderIp: number): Uint8Array {
  const frame = new Uint8Array(VNET_HDR_LEN + 14 + 28);
  putMac(frame, VNET_HDR_LEN, BROADCAST);
  putMac(frame, VNET_HDR_LEN + 6, from);
  put16(frame, VNET_HDR_LEN + 12, 0x0806);
  putMac(frame, VNET_HDR_LEN + 14 + 8, senderMac);
  put32(frame, VNET_HDR_LEN + 14 + 14, senderIp);
  return frame;
}

const guardOf = (mac: number, ipv4: number): SourceGuard => ({ mac, ipv4, ipv6: undefined });

function build(options: { guarded: boolean }) {
  let nowMs = 0;
  const fabric = new Switch({ uplinkMac: GATEWAY, mtuBytes: 1500, now: () => nowMs });
  const stack: Uint8Array[] = [];
  fabric.uplink.start({ frame: (buf, off, end) => stack.push(buf.slice(off, end)) });
  const a = new TestLink();
  const b = new TestLink();
  const portA = fabric.addPort(a, options.guarded ? guardOf(A, A_IP) : undefined);
  const portB = fabric.addPort(b, options.guarded ? guardOf(B, B_IP) : undefined);
  return { fabric, stack, a, b, portA, portB, advance: (ms: number) => (nowMs += ms) };
}

describe('forwarding', () => {
  test('a frame for the gateway reaches the stack alone', () => {
    const { stack, a, b } = build({ guarded: true });
    const frame = ipv4Frame(A, GATEWAY, A_IP);
    a.inject(frame);
    expect(stack).toEqual([frame]);
    expect(b.got).toEqual([]);
  });

  test('a frame between guests passes with its virtio_net_hdr and does not reach the stack', () => {
    const { stack, a, b } = build({ guarded: true });
    const frame = ipv4Frame(A, B, A_IP);
    frame[0] = 1;
    a.inject(frame);
    expect(b.got).toEqual([frame]);
    expect(stack).toEqual([]);
  });

  test('the stack reaches a guest with head and body in two pieces', () => {
    const { fabric, a, b } = build({ guarded: true });
    const frame = ipv4Frame(GATEWAY, A, GATEWAY_IP);
    const head = frame.subarray(0, 44);
    const body = frame.subarray(44);
    expect(fabric.uplink.send(head, 0, head.length, body, 0, body.length)).toBe(true);
    expect(a.got).toEqual([frame]);
    expect(b.got).toEqual([]);
  });

  test('a broadcast reaches all but its sender', () => {
    const { stack, a, b } = build({ guarded: true });
    a.inject(arpFrame(A, A, A_IP));
    expect(stack).toHaveLength(1);
    expect(b.got).toHaveLength(1);
    expect(a.got).toHaveLength(0);
  });

  test('flush reaches only links that were written to', () => {
    const { fabric, a, b } = build({ guarded: true });
    a.inject(ipv4Frame(A, B, A_IP));
    fabric.uplink.flush();
    expect([a.flushes, b.flushes]).toEqual([0, 1]);
  });

  test('a plain frame longer than the MTU is dropped, a super-frame of small segments passes', () => {
    const { a, b, portB } = build({ guarded: true });
    const long = ipv4Frame(A, B, A_IP, 1481);
    a.inject(long);
    expect(b.got).toHaveLength(0);
    expect(portB.counters.tooBig).toBe(1);
    long[1] = 1;
    long[4] = 1448 & 255;
    long[5] = 1448 >>> 8;
    a.inject(long);
    expect(b.got).toHaveLength(1);
  });

  test('a guest that does not read loses its own frames and no others', () => {
    const { fabric, a, b, portB } = build({ guarded: true });
    b.reading = false;
    a.inject(ipv4Frame(A, B, A_IP));
    a.inject(arpFrame(A, A, A_IP));
    expect(portB.counters.dropped).toBe(2);
    const frame = ipv4Frame(GATEWAY, A, GATEWAY_IP);
    expect(fabric.uplink.send(frame, 0, frame.length, undefined, 0, 0)).toBe(true);
  });

  test('a runt is ignored', () => {
    const { stack, a, b, portA } = build({ guarded: true });
    a.inject(new Uint8Array(VNET_HDR_LEN + 13));
    expect([stack.length, b.got.length, portA.counters.framesIn]).toEqual([0, 0, 0]);
  });

  test('a closed port gets nothing and its link is closed', () => {
    const { a, b, portB } = build({ guarded: true });
    portB.close();
    a.inject(ipv4Frame(A, B, A_IP));
    expect(b.got).toHaveLength(0);
    expect(b.closed).toBe(true);
  });
});

describe('a guarded port', () => {
  test.each([
    ["a neighbour's MAC", ipv4Frame(B, GATEWAY, A_IP)],
    ["a neighbour's IPv4 address", ipv4Frame(A, GATEWAY, B_IP)],
    ["the gateway's IPv4 address", ipv4Frame(A, B, GATEWAY_IP)],
    ["an ARP claim of the gateway's address", arpFrame(A, A, GATEWAY_IP)],
    ['an ARP claim with another MAC inside', arpFrame(A, B, A_IP)],
  ])('may not send from %s', (_name, frame) => {
    const { stack, a, b, portA } = build({ guarded: true });
    a.inject(frame);
    expect([stack.length, b.got.length, portA.counters.spoofed]).toEqual([0, 0, 1]);
  });

  test('may probe an address before it uses it', () => {
    const { stack, a } = build({ guarded: true });
    a.inject(arpFrame(A, A, 0));
    expect(stack).toHaveLength(1);
  });

  test('may send neither IPv6 nor VLAN tags when it was given neither', () => {
    const { stack, a, portA } = build({ guarded: true });
    for (const etherType of [0x86dd, 0x8100]) {
      const frame = ipv4Frame(A, GATEWAY, A_IP, 60);
      put16(frame, VNET_HDR_LEN + 12, etherType);
      a.inject(frame);
    }
    expect(stack).toHaveLength(0);
    expect(portA.counters.spoofed).toBe(2);
  });

  test('is not shown frames for unknown addresses', () => {
    const { stack, a, b, portA } = build({ guarded: true });
    a.inject(ipv4Frame(A, STRANGER, A_IP));
    expect([stack.length, b.got.length, portA.counters.spoofed]).toEqual([0, 0, 0]);
  });
});

describe('a learning port', () => {
  test('learns its address, floods what is unknown, and forgets after 300 s of silence', () => {
    const { a, b, fabric, advance } = build({ guarded: false });
    const c = new TestLink();
    fabric.addPort(c, undefined);
    a.inject(ipv4Frame(A, B, A_IP));
    expect([b.got.length, c.got.length]).toEqual([1, 1]);
    b.inject(ipv4Frame(B, A, B_IP));
    expect([a.got.length, c.got.length]).toEqual([1, 1]);
    advance(300_001);
    a.inject(ipv4Frame(A, B, A_IP));
    expect([b.got.length, c.got.length]).toEqual([2, 2]);
  });

  test("cannot take the gateway's MAC, nor that of a guarded port", () => {
    const { a, fabric, stack } = build({ guarded: false });
    const guarded = new TestLink();
    fabric.addPort(guarded, guardOf(STRANGER, GATEWAY_IP + 9));
    a.inject(ipv4Frame(GATEWAY, B, GATEWAY_IP));
    a.inject(ipv4Frame(STRANGER, B, GATEWAY_IP));
    const frame = ipv4Frame(B, GATEWAY, B_IP);
    a.inject(frame);
    expect(stack).toEqual([frame]);
  });

  test('a guest that moved is found at its new port', () => {
    const { a, b, fabric } = build({ guarded: false });
    a.inject(ipv4Frame(A, GATEWAY, A_IP));
    b.inject(ipv4Frame(A, GATEWAY, A_IP));
    const frame = ipv4Frame(GATEWAY, A, GATEWAY_IP);
    fabric.uplink.send(frame, 0, frame.length, undefined, 0, 0);
    expect([a.got.length, b.got.length]).toEqual([0, 1]);
  });

  test('learns a bounded number of addresses, and what is learnt ages to make room', () => {
    const { a, fabric, advance } = build({ guarded: false });
    for (let i = 0; i < 1000; i++) a.inject(ipv4Frame(0x0200_0001_0000 + i, GATEWAY, A_IP));
    expect([...fabric.addresses()]).toHaveLength(257);
    advance(300_001);
    a.inject(ipv4Frame(STRANGER, GATEWAY, A_IP));
    expect([...fabric.addresses()].map(({ mac }) => mac)).toEqual([GATEWAY, STRANGER]);
  });

  test('tells which addresses come and go, once each', () => {
    let nowMs = 0;
    const changes: [number, boolean][] = [];
    const fabric = new Switch({
      uplinkMac: GATEWAY,
      mtuBytes: 1500,
      now: () => nowMs,
      stationChanged: (mac, present) => changes.push([mac, present]),
    });
    const [a, b] = [new TestLink(), new TestLink()];
    const port = fabric.addPort(a, undefined);
    fabric.addPort(b, guardOf(B, B_IP));
    a.inject(ipv4Frame(A, GATEWAY, A_IP));
    a.inject(ipv4Frame(A, GATEWAY, A_IP));
    a.inject(ipv4Frame(STRANGER, GATEWAY, A_IP));
    b.inject(ipv4Frame(B, GATEWAY, B_IP));
    expect(changes).toEqual([
      [A, true],
      [STRANGER, true],
    ]);
    nowMs = 300_001;
    b.inject(ipv4Frame(B, A, B_IP));
    port.close();
    expect(changes.slice(2)).toEqual([
      [A, false],
      [STRANGER, false],
    ]);
  });

  test('may flood at a bounded rate', () => {
    const { a, b, portA, advance } = build({ guarded: false });
    for (let i = 0; i < 5000; i++) a.inject(arpFrame(A, A, A_IP));
    expect(b.got.length).toBe(2000);
    expect(portA.counters.floodLimited).toBe(3000);
    advance(500);
    for (let i = 0; i < 5000; i++) a.inject(arpFrame(A, A, A_IP));
    expect(b.got.length).toBe(3000);
  });
});

test('a guest may send from its link-local addresses too', () => {
  const fabric = new Switch({ uplinkMac: GATEWAY, mtuBytes: 1500, now: () => 0 });
  const link = new TestLink();
  const linkLocal = [parseIpv4('169.254.7.7')!];
  const port = fabric.addPort(link, { mac: A, ipv4: A_IP, linkLocal, ipv6: undefined });
  link.inject(ipv4Frame(A, GATEWAY, linkLocal[0]!));
  link.inject(ipv4Frame(A, GATEWAY, parseIpv4('169.254.7.8')!));
  expect(port.counters.spoofed).toBe(1);
});
