/** Hostile input at the edge of a network: whatever a machine writes to its wire, nothing throws, hangs or grows. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import * as socket from '#common/native/socket';
import { seededRng } from '#common/rng';
import { Poller } from '../../netstack/host/poller.ts';
import { compileFilter } from '../../netstack/link/capture-filter.ts';
import { Faults } from '../../netstack/link/faults.ts';
import { FRAME_BYTES_MAX, type FrameSink, type Link, VNET_HDR_LEN } from '../../netstack/link/link.ts';
import { SoftwareOffload } from '../../netstack/link/offload.ts';
import { httpConnectPreamble, vmnetPreamble } from '../../netstack/link/preamble.ts';
import { type Framing, LE16_FRAMING, QEMU_FRAMING, StreamLink } from '../../netstack/link/stream.ts';
import { Switch } from '../../netstack/link/switch.ts';
import { parseMac } from '../../netstack/wire/address.ts';
import { inputs } from '../support/fuzz/inputs.ts';

const GATEWAY = parseMac('02:42:ac:11:00:01')!;
const GUEST = parseMac('02:42:ac:11:00:02')!;

/** A link into which the test injects, and which counts what it is given. */
function testLink(): Link & { inject(frame: Uint8Array): void; sent: number } {
  let sink: FrameSink = { frame() {} };
  return {
    mtuBytes: 1500,
    offload: false,
    sent: 0,
    start(given) {
      sink = given;
    },
    send(head, headOff, headLen, body, bodyOff, bodyLen) {
      expect(headOff + headLen).toBeLessThanOrEqual(head.length);
      if (body) expect(bodyOff + bodyLen).toBeLessThanOrEqual(body.length);
      this.sent++;
      return true;
    },
    flush() {},
    close() {},
    inject: (frame) => sink.frame(frame, 0, frame.length),
  };
}

/** Frames that are more than noise: addresses and types that lead somewhere, a virtio_net_hdr of any kind. */
const frames = fc
  .record({
    header: fc.uint8Array({ minLength: VNET_HDR_LEN, maxLength: VNET_HDR_LEN }),
    to: fc.constantFrom('0242ac110001', '0242ac110002', '0242ac110003', 'ffffffffffff', '01005e000001'),
    from: fc.constantFrom('0242ac110001', '0242ac110002', '0242ac110003', 'ffffffffffff'),
    type: fc.constantFrom('0800', '0806', '86dd', '8100', 'ffff'),
    rest: fc.uint8Array({ maxLength: 200 }),
  })
  .map(({ header, to, from, type, rest }) =>
    Uint8Array.from(Buffer.concat([header, Buffer.from(to + from + type, 'hex'), rest])),
  );

describe('a switch with offload and faults', () => {
  test('takes any frames from guarded and learning ports, and keeps its table small', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.boolean(), frames), { maxLength: 60 }), fc.nat(), (traffic, seed) => {
        let now = 0;
        const fabric = new Switch({ uplinkMac: GATEWAY, mtuBytes: 1500, now: () => now });
        const faults = new Faults(
          { drop: 0.1, delayMs: 1, reorder: 0.2, corrupt: 0.2 },
          seededRng(seed),
          () => now,
        );
        const [guarded, learning] = [testLink(), testLink()];
        fabric.addPort(new SoftwareOffload(faults.wrap(guarded)), {
          mac: GUEST,
          ipv4: 0xac110002,
          ipv6: undefined,
        });
        fabric.addPort(new SoftwareOffload(faults.wrap(learning)), undefined);
        fabric.uplink.start({ frame: (buf, off, end) => expect(end - off).toBeLessThanOrEqual(buf.length) });
        for (const [fromGuarded, frame] of traffic) {
          (fromGuarded ? guarded : learning).inject(frame);
          fabric.uplink.send(frame, 0, frame.length, undefined, 0, 0);
          now += 0.3;
          faults.poll(now);
        }
        expect([...fabric.addresses()].length).toBeLessThanOrEqual(2 + 256);
      }),
      { numRuns: inputs(200) },
    );
  });
});

/** Bytes that are often the beginning, the end or the whole of a frame. */
const chunk = (framing: Framing): fc.Arbitrary<Uint8Array> =>
  fc.tuple(fc.integer({ min: 0, max: 400 }), fc.uint8Array({ maxLength: 400 })).map(([length, rest]) => {
    const bytes = new Uint8Array(framing.headerLen + rest.length);
    framing.writeLength(bytes, 0, rest.length % 3 === 0 ? rest.length : length);
    bytes.set(rest, framing.headerLen);
    return bytes;
  });

/** The frames of a stream, read the plain way, and whether it breaks the framing. */
function readStream(framing: Framing, bytes: Uint8Array): { frames: number; broken: boolean } {
  let count = 0;
  for (let at = 0; at + framing.headerLen <= bytes.length; ) {
    const length = framing.readLength(bytes, at);
    if (length > framing.frameLenMax) return { frames: count, broken: true };
    at += framing.headerLen + length;
    if (at > bytes.length) break;
    if (length >= 14) count++;
  }
  return { frames: count, broken: false };
}

describe('a stream link', () => {
  test.each([QEMU_FRAMING, LE16_FRAMING])(
    'finds the frames of any bytes in $name framing, cut anywhere',
    (framing) => {
      fc.assert(
        fc.property(fc.array(chunk(framing), { maxLength: 12 }), (chunks) => {
          const poller = new Poller();
          const [ours, theirs] = socket.socketPair();
          let ended = false;
          let found = 0;
          const link = new StreamLink({
            poller,
            framing,
            readFd: ours,
            writeFd: ours,
            mtuBytes: 1500,
            ended: () => {
              ended = true;
            },
          });
          link.start({
            frame: (buf, off, end) => {
              found++;
              expect(end - off).toBeGreaterThanOrEqual(VNET_HDR_LEN + 14);
              expect(end - off).toBeLessThanOrEqual(FRAME_BYTES_MAX);
              expect(end).toBeLessThanOrEqual(buf.length);
            },
          });
          try {
            for (const bytes of chunks) {
              socket.send(theirs, bytes, 0, bytes.length);
              for (let i = 0; i < 3; i++) {
                poller.wait(0);
                poller.dispatch();
              }
            }
          } finally {
            link.close();
            socket.close(theirs);
            poller.close();
          }
          const { frames: expected, broken } = readStream(framing, Buffer.concat(chunks));
          expect([found, ended]).toEqual([expected, broken]);
        }),
        { numRuns: inputs(100) },
      );
    },
  );
});

describe('preambles', () => {
  test('eat any bytes, never more than there are, and make up their mind', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 9000 }), fc.boolean(), (bytes, http) => {
        const preamble = http ? httpConnectPreamble() : vmnetPreamble({ admit: () => GUEST }, 1500);
        let at = 0;
        for (let turns = 0; turns < 10; turns++) {
          const step = preamble.receive(bytes, at, bytes.length);
          at += step.consumed;
          expect(at).toBeLessThanOrEqual(bytes.length);
          if (step.state !== 'more' || step.consumed === 0) return;
        }
        throw new Error('the preamble goes on for ever');
      }),
    );
  });
});

describe('a capture filter', () => {
  const words = [
    'tcp',
    'udp',
    'port',
    '53',
    'host',
    '10.0.0.1',
    'net',
    '10.0.0.0/8',
    'and',
    'or',
    'not',
    '(',
    ')',
    'src',
  ];

  test('either says what is wrong with an expression or judges any frame', () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom(...words), { maxLength: 8 }),
        fc.uint8Array({ maxLength: 80 }),
        (expression, frame) => {
          try {
            const filter = compileFilter(expression.join(' '));
            expect(typeof filter(frame, 0, frame.length)).toBe('boolean');
          } catch (error) {
            expect(error).toMatchObject({ code: 'ERR_FILTER_INVALID' });
          }
        },
      ),
      { numRuns: inputs(1000) },
    );
  });
});
