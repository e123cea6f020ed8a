/** TCP flows between a guest and the host's sockets: opening, moving bytes, ending, limits. TCP itself is tested beside it. */
import { expect } from 'vitest';
import type { HostError, StreamSink } from '../../netstack/flow/host.ts';
import type { DialOptions } from '../../netstack/flow/inside.ts';
import { TCP_ACK, TCP_FIN, TCP_PSH, TCP_RST, TCP_SYN } from '../../netstack/wire/tcp.ts';
import { address, Bench, GATEWAY, GUEST, SERVER } from '../support/netstack/bench.ts';
import {
  bytes,
  concat,
  type Decoded,
  icmpMessage,
  ipPacket,
  pattern,
  tcpSegment,
} from '../support/netstack/frames.ts';
import { ScriptedStream } from '../support/netstack/scripted-host.ts';
import { type Case, conform } from './conform.ts';

const PEER = '203.0.113.5';
const NEIGHBOUR = '10.0.2.16';
/** Long enough for every timer that ends a connection in order. */
const LINGER_MS = 120_000;

const QUIET: StreamSink = { connected() {}, readable() {}, writable() {}, failed() {} };

/** A sink that writes down what happens. */
function recorder(): StreamSink & { events: string[] } {
  const events: string[] = [];
  return {
    events,
    connected: () => void events.push('connected'),
    readable: () => void events.push('readable'),
    writable: () => void events.push('writable'),
    failed: (error) => void events.push(error),
  };
}

function payloadOf(frames: Decoded[]): Uint8Array {
  return concat(...frames.map((each) => each.payload));
}

/** The handshake of a guest that is dialled: answers the SYN that was sent. */
function answerSyn(bench: Bench, syn: Decoded, from = GUEST): Decoded[] {
  return bench.exchange(
    bench.tcp(
      syn.src,
      {
        sourcePort: syn.tcp!.destinationPort,
        destinationPort: syn.tcp!.sourcePort,
        flags: TCP_SYN | TCP_ACK,
        sequence: 7000,
        acknowledgment: (syn.tcp!.sequence + 1) | 0,
        mss: 1460,
      },
      undefined,
      { src: from },
    ),
  );
}

function failing(error: HostError, expected: Partial<{ rst: boolean; code: number }>): Case {
  return [
    'RFC 9293 section 3.9.2.2',
    `a connect that ends with ${error} is answered by ${expected.rst ? 'RST' : expected.code === undefined ? 'silence' : `unreachable code ${expected.code}`}`,
    () => {
      const bench = new Bench();
      bench.exchange(bench.tcp(SERVER, { flags: TCP_SYN, sequence: 0x01020304 }));
      bench.host.streams[0]!.fail(error);
      const frames = bench.turn();
      if (expected.rst)
        expect(frames[0]?.tcp).toMatchObject({ flags: TCP_RST | TCP_ACK, acknowledgment: 0x01020305 });
      else if (expected.code === undefined) expect(frames).toEqual([]);
      else {
        expect(frames[0]?.icmp).toMatchObject({ type: 3, code: expected.code });
        expect([...frames[0]!.payload.subarray(20, 28)]).toEqual([0x17, 0x70, 0, 80, 1, 2, 3, 4]);
      }
      expect(bench.count('tcpFlows')).toBe(0);
      expect(bench.count('guests')).toBe(0);
    },
  ];
}

conform('opening', [
  [
    'RFC 9293 section 3.5',
    'a SYN is not answered before the host is connected, however often it is sent',
    () => {
      const bench = new Bench();
      for (let i = 0; i < 5; i++) {
        expect(bench.exchange(bench.tcp(SERVER, { flags: TCP_SYN, sequence: 1 }))).toEqual([]);
        bench.advance(1000);
      }
      expect(bench.host.streams).toHaveLength(1);
    },
  ],
  failing('ECONNREFUSED', { rst: true }),
  failing('ECONNRESET', { rst: true }),
  failing('EHOSTUNREACH', { code: 1 }),
  failing('ENETUNREACH', { code: 0 }),
  failing('EACCES', { code: 13 }),
  failing('ETIMEDOUT', {}),
  failing('EMFILE', {}),
  [
    'RFC 9293 section 3.9.2.2',
    'a connect that cannot even begin is answered in the same way',
    () => {
      const bench = new Bench();
      bench.host.onConnect = () => 'ENETUNREACH';
      const frames = bench.exchange(bench.tcp(SERVER, { flags: TCP_SYN, sequence: 1 }));
      expect(frames[0]?.icmp).toMatchObject({ type: 3, code: 0 });
      bench.host.onConnect = () => 'ECONNREFUSED';
      expect(bench.exchange(bench.tcp(SERVER, { flags: TCP_SYN, sequence: 1 }))[0]?.tcp?.flags).toBe(
        TCP_RST | TCP_ACK,
      );
    },
  ],
  [
    'RFC 9293 section 3.5',
    'after a silent failure the same SYN tries again',
    () => {
      const bench = new Bench();
      const syn = bench.tcp(SERVER, { flags: TCP_SYN, sequence: 1 });
      bench.exchange(syn);
      bench.host.streams[0]!.fail('EMFILE');
      bench.exchange(syn);
      expect(bench.host.streams).toHaveLength(2);
    },
  ],
  [
    'RFC 9293 section 3.5',
    "a RST of the guest withdraws its SYN, and the host's connect with it",
    () => {
      const bench = new Bench();
      bench.exchange(bench.tcp(SERVER, { flags: TCP_SYN, sequence: 1 }));
      bench.exchange(bench.tcp(SERVER, { flags: TCP_RST, sequence: 2 }));
      expect(bench.count('tcpFlows')).toBe(0);
      expect(bench.host.open).toBe(0);
    },
  ],
  [
    'RFC 9293 section 3.10.7.1',
    'a segment for no connection gets the RST that it deserves',
    () => {
      const bench = new Bench();
      const [withAck] = bench.exchange(
        bench.tcp(SERVER, { flags: TCP_ACK, sequence: 5, acknowledgment: 77 }),
      );
      expect(withAck?.tcp).toMatchObject({ flags: TCP_RST, sequence: 77 });
      const [without] = bench.exchange(bench.tcp(SERVER, { flags: TCP_FIN, sequence: 5 }, bytes('abc')));
      expect(without?.tcp).toMatchObject({ flags: TCP_RST | TCP_ACK, sequence: 0, acknowledgment: 9 });
      expect(withAck).toMatchObject({ src: SERVER, dst: GUEST, checksumRight: true });
    },
  ],
  [
    'RFC 9293 section 3.10.7.1',
    'a RST for no connection is ignored',
    () => expect(new Bench().exchange(new Bench().tcp(SERVER, { flags: TCP_RST, sequence: 5 }))).toEqual([]),
  ],
  [
    'RFC 9293 section 3.1',
    'a wrong checksum is dropped',
    () => {
      const bench = new Bench();
      const whole = bench.tcp(SERVER, { flags: TCP_SYN, sequence: 5 });
      whole[whole.length - 1]! ^= 1;
      bench.exchange(whole);
      expect(bench.host.streams).toEqual([]);
      expect(bench.count('tcpMalformed')).toBe(1);
    },
  ],
  [
    'RFC 9293 section 3.1',
    'a data offset beyond the segment is dropped',
    () => {
      const bench = new Bench();
      const whole = bench.tcp(SERVER, { flags: TCP_SYN, sequence: 5 });
      whole[44 + 12] = 0xf0;
      bench.exchange(whole);
      expect(bench.count('tcpMalformed')).toBe(1);
    },
  ],
  [
    'RFC 9293 section 3.10.7.2',
    'SYN with FIN opens nothing',
    () => {
      const bench = new Bench();
      bench.exchange(bench.tcp(SERVER, { flags: TCP_SYN | TCP_FIN, sequence: 5 }));
      expect(bench.count('tcpFlows')).toBe(0);
      expect(bench.count('guests')).toBe(0);
    },
  ],
  [
    'RFC 9293 section 3.10.7.4',
    'a new SYN takes the place of a connection in TIME-WAIT',
    () => {
      const bench = new Bench();
      const { sequence, acknowledgment } = bench.open();
      bench.host.streams[0]!.end();
      bench.turn();
      bench.exchange(
        bench.tcp(SERVER, {
          flags: TCP_ACK | TCP_FIN,
          sequence,
          acknowledgment: acknowledgment + 1,
        }),
      );
      bench.exchange(bench.tcp(SERVER, { flags: TCP_SYN, sequence: 900_000, mss: 1460 }));
      expect(bench.host.streams).toHaveLength(2);
    },
  ],
  [
    'gateway',
    "a connection to the gateway goes to the host's loopback, without a TTL of its own",
    () => {
      const bench = new Bench();
      bench.exchange(bench.tcp(GATEWAY, { flags: TCP_SYN, sequence: 5 }));
      expect(bench.host.streams[0]).toMatchObject({ address: '127.0.0.1', ttl: 0 });
    },
  ],
  [
    'gateway',
    "without the host's loopback it is refused",
    () => {
      const bench = new Bench({ stack: { hostLoopback: false } });
      const [reset] = bench.exchange(bench.tcp(GATEWAY, { flags: TCP_SYN, sequence: 5 }));
      expect(reset?.tcp?.flags).toBe(TCP_RST | TCP_ACK);
      expect(bench.host.streams).toEqual([]);
    },
  ],
  [
    'egress policy',
    'what may not leave is refused, and counted',
    () => {
      const bench = new Bench({ stack: { egress: { allows: () => false } } });
      const [reset] = bench.exchange(bench.tcp(SERVER, { flags: TCP_SYN, sequence: 5 }));
      expect(reset?.tcp?.flags).toBe(TCP_RST | TCP_ACK);
      expect(bench.host.streams).toEqual([]);
      expect(bench.count('egressDenied')).toBe(1);
    },
  ],
]);

conform('bytes', [
  [
    'RFC 9293 section 3.8',
    "what the host's socket does not take is kept, and the window tells the guest",
    () => {
      const bench = new Bench();
      const { sequence, acknowledgment } = bench.open();
      const [stream] = bench.host.streams;
      stream!.room = 100;
      const segment = bench.tcp(SERVER, { flags: TCP_ACK, sequence, acknowledgment }, pattern(1000));
      const [ack] = bench.exchange(segment).filter((each) => each.tcp);
      expect(stream!.written).toHaveLength(100);
      if (ack) expect(ack.tcp!.window).toBeLessThanOrEqual(65535 - 900);
      stream!.drain(10_000);
      bench.turn();
      expect(Uint8Array.from(stream!.written)).toEqual(pattern(1000));
    },
  ],
  [
    'RFC 9293 section 3.4',
    'segments that overtook each other reach the host in order',
    () => {
      const bench = new Bench();
      const { sequence, acknowledgment } = bench.open();
      const part = (from: number, to: number): Uint8Array =>
        bench.tcp(
          SERVER,
          { flags: TCP_ACK, sequence: sequence + from, acknowledgment },
          pattern(3000).slice(from, to),
        );
      bench.exchange(part(1000, 2000), part(2000, 3000), part(0, 1000), part(500, 1500));
      expect(Uint8Array.from(bench.host.streams[0]!.written)).toEqual(pattern(3000));
    },
  ],
  [
    'RFC 5681 section 4.2',
    'a batch of segments is acknowledged once',
    () => {
      const bench = new Bench();
      const { sequence, acknowledgment } = bench.open();
      const segments = Array.from({ length: 10 }, (_, i) =>
        bench.tcp(
          SERVER,
          { flags: TCP_ACK, sequence: sequence + i * 1000, acknowledgment },
          pattern(10_000).slice(i * 1000, (i + 1) * 1000),
        ),
      );
      const acks = bench.exchange(...segments);
      expect(acks).toHaveLength(1);
      expect(acks[0]?.tcp?.acknowledgment).toBe(sequence + 10_000);
    },
  ],
  [
    'RFC 9293 section 3.7.1',
    'segments to the guest keep to its MSS',
    () => {
      const bench = new Bench();
      bench.exchange(bench.tcp(SERVER, { flags: TCP_SYN, sequence: 1000, mss: 536 }));
      bench.host.streams[0]!.accept();
      const acknowledgment = (bench.turn()[0]!.tcp!.sequence + 1) | 0;
      bench.exchange(bench.tcp(SERVER, { flags: TCP_ACK, sequence: 1001, acknowledgment }));
      bench.host.streams[0]!.push(pattern(2000));
      const frames = bench.turn();
      expect(Math.max(...frames.map((each) => each.payload.length))).toBeLessThanOrEqual(536);
      expect(payloadOf(frames)).toEqual(pattern(2000));
    },
  ],
  [
    'virtio 1.2 section 5.1.6.2',
    'on a link with offload a large write is one super-frame with gso fields and a partial checksum',
    () => {
      const bench = new Bench({ offload: true });
      bench.open();
      bench.host.streams[0]!.push(pattern(10_000));
      const [first] = bench.turn();
      expect(first!.payload.length).toBeGreaterThan(1460);
      expect(first).toMatchObject({ gsoType: 1, gsoSize: 1460, checksumRight: true });
    },
  ],
  [
    'virtio 1.2 section 5.1.6.2',
    'a single segment has no gso fields',
    () => {
      const bench = new Bench({ offload: true });
      bench.open();
      bench.host.streams[0]!.push(pattern(1000));
      expect(bench.turn()[0]).toMatchObject({ gsoType: 0, gsoSize: 0, checksumRight: true });
    },
  ],
  [
    'back-pressure',
    'a host that sends more than the guest takes is not read further',
    () => {
      const bench = new Bench();
      bench.open();
      const [stream] = bench.host.streams;
      let given = 0;
      const chunk = new Uint8Array(1 << 20);
      stream!.read = (_buf, _off, len) => {
        given += len;
        return Math.min(len, chunk.length);
      };
      stream!.sink.readable();
      for (let i = 0; i < 20; i++) {
        bench.turn();
        bench.advance(100);
      }
      expect(given).toBeGreaterThan(0);
      expect(given).toBeLessThanOrEqual(4 << 20);
    },
  ],
  [
    'RFC 9293 section 3.8.1',
    'a link that takes nothing loses nothing: it is tried again',
    () => {
      const bench = new Bench();
      bench.open();
      bench.link.full = true;
      bench.host.streams[0]!.push(pattern(500));
      expect(bench.turn()).toEqual([]);
      expect(bench.stack.pollAt()).toBeLessThanOrEqual(bench.now + 10);
      bench.link.full = false;
      bench.advance(10);
      expect(
        payloadOf(
          bench.link
            .take()
            .map((frame) => frame.subarray(64))
            .map(asPayload),
        ),
      ).toEqual(pattern(500));
    },
  ],
]);

function asPayload(payload: Uint8Array): Decoded {
  return { payload } as Decoded;
}

conform('ending', [
  [
    'RFC 9293 section 3.6',
    "the guest's FIN shuts the host's socket for writing after the last byte, and answers still come",
    () => {
      const bench = new Bench();
      const { sequence, acknowledgment } = bench.open();
      const [stream] = bench.host.streams;
      stream!.room = 3;
      bench.exchange(
        bench.tcp(SERVER, { flags: TCP_ACK | TCP_FIN, sequence, acknowledgment }, bytes('request')),
      );
      expect(stream!.isShutdown).toBe(false);
      stream!.drain(100);
      bench.turn();
      expect(stream!.text).toBe('request');
      expect(stream!.isShutdown).toBe(true);
      stream!.push(bytes('answer'));
      expect(payloadOf(bench.turn())).toEqual(bytes('answer'));
      expect(stream!.isClosed).toBe(false);
    },
  ],
  [
    'RFC 9293 section 3.6',
    "the host's end of stream is a FIN behind the last byte, and the guest still sends",
    () => {
      const bench = new Bench();
      const { sequence, acknowledgment } = bench.open();
      const [stream] = bench.host.streams;
      stream!.push(bytes('bye'));
      stream!.end();
      const frames = bench.turn();
      expect(payloadOf(frames)).toEqual(bytes('bye'));
      expect(frames.at(-1)!.tcp!.flags & TCP_FIN).toBe(TCP_FIN);
      bench.exchange(
        bench.tcp(
          SERVER,
          { flags: TCP_ACK | TCP_PSH, sequence, acknowledgment: acknowledgment + 4 },
          bytes('more'),
        ),
      );
      expect(stream!.text).toBe('more');
    },
  ],
  [
    'RFC 9293 section 3.5.3',
    "the guest's RST becomes a RST of the host's socket",
    () => {
      const bench = new Bench();
      const { sequence } = bench.open();
      bench.exchange(bench.tcp(SERVER, { flags: TCP_RST, sequence }));
      expect(bench.host.streams[0]).toMatchObject({ isReset: true, isClosed: false });
      expect(bench.count('tcpFlows')).toBe(0);
    },
  ],
  [
    'RFC 9293 section 3.5.3',
    "the guest's RST ends a connection whose host takes nothing",
    () => {
      const bench = new Bench();
      const { sequence, acknowledgment } = bench.open();
      bench.host.streams[0]!.room = 0;
      bench.exchange(bench.tcp(SERVER, { flags: TCP_ACK, sequence, acknowledgment }, pattern(100)));
      bench.exchange(bench.tcp(SERVER, { flags: TCP_RST, sequence: sequence + 100 }));
      expect(bench.host.streams[0]?.isReset).toBe(true);
      expect(bench.count('tcpFlows')).toBe(0);
    },
  ],
  [
    'RFC 9293 section 3.5.3',
    "a RST at the host's socket becomes a RST to the guest",
    () => {
      const bench = new Bench();
      const { sequence, acknowledgment } = bench.open();
      bench.host.streams[0]!.fail('ECONNRESET');
      const [reset] = bench.turn();
      expect(reset!.tcp!.flags & TCP_RST).toBe(TCP_RST);
      expect(reset!.tcp).toMatchObject({ sequence: acknowledgment, acknowledgment: sequence });
      expect(bench.count('tcpFlows')).toBe(0);
    },
  ],
  [
    'RFC 5961 section 3.2',
    'a RST that does not hit the sequence number exactly ends nothing',
    () => {
      const bench = new Bench();
      const { sequence } = bench.open();
      const [challenge] = bench.exchange(bench.tcp(SERVER, { flags: TCP_RST, sequence: sequence + 10 }));
      expect(challenge?.tcp?.flags).toBe(TCP_ACK);
      expect(bench.host.streams[0]?.isReset).toBe(false);
    },
  ],
  [
    'RFC 9293 section 3.6',
    'both FINs leave nothing behind',
    () => {
      const bench = new Bench();
      const { sequence, acknowledgment } = bench.open();
      bench.exchange(bench.tcp(SERVER, { flags: TCP_ACK | TCP_FIN, sequence, acknowledgment }));
      bench.host.streams[0]!.end();
      bench.turn();
      bench.exchange(
        bench.tcp(SERVER, {
          flags: TCP_ACK,
          sequence: sequence + 1,
          acknowledgment: acknowledgment + 1,
        }),
      );
      bench.advance(LINGER_MS);
      expect(bench.host.open).toBe(0);
      for (const gauge of ['tcpFlows', 'guests']) expect(bench.count(gauge)).toBe(0);
    },
  ],
  [
    'RFC 9293 section 3.8.4',
    'an idle connection is not cut: not in an hour, and not after it when the guest answers keep-alives',
    () => {
      const bench = new Bench();
      const { sequence, acknowledgment } = bench.open();
      bench.advance(3_600_000);
      expect(bench.turn()).toEqual([]);
      for (let minute = 0; minute < 600; minute++) {
        bench.advance(60_000);
        const probes = bench.turn();
        if (probes.length > 0)
          bench.exchange(bench.tcp(SERVER, { flags: TCP_ACK, sequence, acknowledgment }));
      }
      expect(bench.count('tcpFlows')).toBe(1);
      bench.host.streams[0]!.push(bytes('still here'));
      expect(payloadOf(bench.turn())).toEqual(bytes('still here'));
    },
  ],
  [
    'RFC 9293 section 3.8.4',
    'a guest that vanished is noticed by keep-alives, and the host is reset',
    () => {
      const bench = new Bench();
      bench.open();
      for (let minute = 0; minute < 200; minute++) bench.advance(60_000);
      expect(bench.host.streams[0]?.isReset).toBe(true);
      expect(bench.count('tcpFlows')).toBe(0);
    },
  ],
  [
    'docker rm',
    'a guest that has left is forgotten, and its peers are reset',
    () => {
      const bench = new Bench();
      bench.open();
      bench.stack.forgetGuest(address(GUEST));
      expect(bench.turn()).toEqual([]);
      expect(bench.host.streams[0]?.isReset).toBe(true);
      for (const gauge of ['tcpFlows', 'guests', 'neighbours']) expect(bench.count(gauge)).toBe(0);
    },
  ],
  [
    'daemon stop',
    'closing the stack resets guests and hosts',
    () => {
      const bench = new Bench();
      bench.open();
      bench.exchange(bench.udp(SERVER, 9000, bytes('x')), bench.ping(SERVER, pattern(8)));
      bench.stack.close();
      const frames = bench.link.take();
      expect(frames).toHaveLength(1);
      expect(bench.host.open).toBe(0);
      for (const gauge of ['tcpFlows', 'udpMappings', 'pings', 'guests']) expect(bench.count(gauge)).toBe(0);
    },
  ],
]);

function relay(bench: Bench, options?: DialOptions): ScriptedStream {
  const stream = new ScriptedStream(PEER, 5555, 0, 0, QUIET);
  stream.sink = bench.stack.relay(stream, address(GUEST), 0, 80, options);
  return stream;
}

conform('published ports', [
  [
    'relay',
    "a client's stream is connected to the guest, and bytes go both ways",
    () => {
      const bench = new Bench();
      bench.introduce();
      const stream = relay(bench);
      stream.push(bytes('GET'));
      const [syn] = bench.turn();
      expect(syn).toMatchObject({ src: GATEWAY, dst: GUEST });
      expect(syn?.tcp).toMatchObject({ flags: TCP_SYN, destinationPort: 80 });
      const frames = answerSyn(bench, syn!);
      expect(payloadOf(frames)).toEqual(bytes('GET'));
      const { sourcePort, sequence } = syn!.tcp!;
      bench.exchange(
        bench.tcp(
          GATEWAY,
          {
            sourcePort: 80,
            destinationPort: sourcePort,
            flags: TCP_ACK | TCP_FIN,
            sequence: 7001,
            acknowledgment: sequence + 4,
          },
          bytes('OK'),
        ),
      );
      expect(stream.text).toBe('OK');
      expect(stream.isShutdown).toBe(true);
    },
  ],
  [
    'relay',
    'the guest sees the source address and port that are asked for',
    () => {
      const bench = new Bench();
      bench.introduce();
      relay(bench, { sourceAddr: address(PEER), sourcePort: 5555 });
      const [syn] = bench.turn();
      expect(syn).toMatchObject({ src: PEER, tcp: { sourcePort: 5555 } });
      answerSyn(bench, syn!);
      expect(bench.count('tcpFlows')).toBe(1);
      // The same again is in use.
      expect(relay(bench, { sourceAddr: address(PEER), sourcePort: 5555 }).isReset).toBe(true);
    },
  ],
  [
    'relay',
    'a guest that refuses resets the client: nobody is told that a port is open which is not',
    () => {
      const bench = new Bench();
      bench.introduce();
      const stream = relay(bench);
      const [syn] = bench.turn();
      bench.exchange(
        bench.tcp(GATEWAY, {
          sourcePort: 80,
          destinationPort: syn!.tcp!.sourcePort,
          flags: TCP_RST | TCP_ACK,
          sequence: 0,
          acknowledgment: (syn!.tcp!.sequence + 1) | 0,
        }),
      );
      expect(stream.isReset).toBe(true);
      expect(bench.count('tcpFlows')).toBe(0);
    },
  ],
  [
    'relay',
    'a guest that does not exist resets the client',
    () => {
      const bench = new Bench();
      const stream = relay(bench);
      for (let second = 0; second < 4; second++) bench.advance(1000);
      expect(stream.isReset).toBe(true);
      expect(bench.count('tcpFlows')).toBe(0);
    },
  ],
  [
    'relay',
    'a client that speaks before the guest is found loses nothing',
    () => {
      const bench = new Bench();
      const stream = relay(bench);
      stream.push(bytes('early'));
      bench.turn();
      const [syn] = bench.exchange(bench.arpReply());
      expect(payloadOf(answerSyn(bench, syn!))).toEqual(bytes('early'));
    },
  ],
  [
    'relay',
    'an address that is no guest resets the client at once',
    () => {
      const bench = new Bench();
      const stream = new ScriptedStream(PEER, 5555, 0, 0, QUIET);
      bench.stack.relay(stream, address(SERVER), 0, 80);
      expect(stream.isReset).toBe(true);
    },
  ],
  [
    'RFC 5461',
    'a guest\'s "host unreachable" for the SYN ends the attempt',
    () => {
      const bench = new Bench();
      bench.introduce();
      const stream = relay(bench);
      const [syn] = bench.turn();
      const quoted = ipPacket(
        GATEWAY,
        GUEST,
        6,
        tcpSegment(GATEWAY, GUEST, {
          sourcePort: syn!.tcp!.sourcePort,
          destinationPort: 80,
          flags: TCP_SYN,
          sequence: syn!.tcp!.sequence,
        }),
      );
      const message = icmpMessage({ type: 3, code: 10, rest: 0 }, quoted);
      bench.exchange(bench.ip(ipPacket(GUEST, GATEWAY, 1, message)));
      expect(stream.isReset).toBe(true);
      expect(bench.count('tcpFlows')).toBe(0);
    },
  ],
  [
    'dial',
    'a user inside gets a stream of its own',
    () => {
      const bench = new Bench();
      bench.introduce();
      const sink = recorder();
      const stream = bench.stack.dial(address(GUEST), 0, 80, sink);
      if (typeof stream === 'string') throw new Error(stream);
      const [syn] = bench.turn();
      answerSyn(bench, syn!);
      expect(sink.events).toEqual(['connected']);
      expect(stream.write(bytes('hi'), 0, 2)).toBe(2);
      expect(payloadOf(bench.turn())).toEqual(bytes('hi'));
      const { sourcePort, sequence } = syn!.tcp!;
      bench.exchange(
        bench.tcp(
          GATEWAY,
          {
            sourcePort: 80,
            destinationPort: sourcePort,
            flags: TCP_ACK | TCP_FIN,
            sequence: 7001,
            acknowledgment: sequence + 3,
          },
          bytes('ho'),
        ),
      );
      expect(sink.events).toEqual(['connected', 'readable']);
      const buf = new Uint8Array(10);
      expect(stream.read(buf, 0, 10)).toBe(2);
      expect(stream.read(buf, 0, 10)).toBe(-1);
      stream.close();
      expect(bench.turn().at(-1)!.tcp!.flags & TCP_FIN).toBe(TCP_FIN);
    },
  ],
  [
    'dial',
    'a refusal is told',
    () => {
      const bench = new Bench();
      bench.introduce();
      const sink = recorder();
      bench.stack.dial(address(GUEST), 0, 80, sink);
      const [syn] = bench.turn();
      bench.exchange(
        bench.tcp(GATEWAY, {
          sourcePort: 80,
          destinationPort: syn!.tcp!.sourcePort,
          flags: TCP_RST | TCP_ACK,
          sequence: 0,
          acknowledgment: (syn!.tcp!.sequence + 1) | 0,
        }),
      );
      expect(sink.events).toEqual(['ECONNREFUSED']);
    },
  ],
  [
    'listen',
    'a service takes connections at the gateway, once the handshake is complete',
    () => {
      const bench = new Bench();
      const accepted: number[] = [];
      const sink = recorder();
      bench.stack.listenTcp(53, {
        accepted: (_stream, _addr, port) => {
          accepted.push(port);
          return sink;
        },
      });
      const ports = { sourcePort: 6000, destinationPort: 53 };
      const [synAck] = bench.exchange(bench.tcp(GATEWAY, { ...ports, flags: TCP_SYN, sequence: 1000 }));
      expect(accepted).toEqual([]);
      const acknowledgment = (synAck!.tcp!.sequence + 1) | 0;
      bench.exchange(
        bench.tcp(GATEWAY, { ...ports, flags: TCP_ACK, sequence: 1001, acknowledgment }, bytes('question')),
      );
      expect(accepted).toEqual([6000]);
      expect(sink.events).toEqual(['readable']);
      expect(bench.host.streams).toEqual([]);
      expect(bench.stack.listenTcp(53, { accepted: () => undefined })).toBe('EADDRINUSE');
    },
  ],
  [
    'listen',
    'a service that does not want a connection resets it',
    () => {
      const bench = new Bench();
      bench.stack.listenTcp(53, { accepted: () => undefined });
      const ports = { sourcePort: 6000, destinationPort: 53 };
      const [synAck] = bench.exchange(bench.tcp(GATEWAY, { ...ports, flags: TCP_SYN, sequence: 1000 }));
      const acknowledgment = (synAck!.tcp!.sequence + 1) | 0;
      const [reset] = bench.exchange(
        bench.tcp(GATEWAY, { ...ports, flags: TCP_ACK, sequence: 1001, acknowledgment }),
      );
      expect(reset!.tcp!.flags & TCP_RST).toBe(TCP_RST);
      expect(bench.count('tcpFlows')).toBe(0);
    },
  ],
]);

conform('limits', [
  [
    'RFC 4987',
    '100,000 SYNs to a black hole hold a bounded number of flows, and others connect',
    () => {
      const bench = new Bench();
      for (let i = 0; i < 100_000; i++) {
        const fields = {
          sourcePort: 1 + (i % 65_000),
          destinationPort: 81 + Math.floor(i / 65_000),
          flags: TCP_SYN,
        };
        bench.deliver(bench.tcp(SERVER, { ...fields, sequence: i }));
        if (i % 100 === 99) bench.stack.poll(bench.now);
      }
      expect(bench.count('tcpFlows')).toBe(1024);
      expect(bench.host.open).toBe(1024);
      expect(bench.count('tcpPendingEvicted')).toBe(100_000 - 1024);
      // Neither the same guest nor another is kept out.
      bench.host.onConnect = (_address, port) => (port === 7 ? 'accept' : undefined);
      for (const src of [GUEST, NEIGHBOUR]) {
        const syn = bench.tcp(SERVER, { destinationPort: 7, flags: TCP_SYN, sequence: 1 }, undefined, {
          src,
        });
        const frames = bench.exchange(syn);
        expect(frames.map((each) => each.tcp?.flags)).toEqual([TCP_SYN | TCP_ACK]);
      }
    },
  ],
  [
    'RFC 4987',
    'guests that never complete the handshake are bounded alike',
    () => {
      const bench = new Bench();
      bench.host.onConnect = () => 'accept';
      for (let i = 0; i < 3000; i++) {
        bench.exchange(bench.tcp(SERVER, { sourcePort: 1 + i, flags: TCP_SYN, sequence: i }));
      }
      expect(bench.count('tcpFlows')).toBe(1024);
      for (let second = 0; second < 200; second++) bench.advance(1000);
      expect(bench.count('tcpFlows')).toBe(0);
      expect(bench.host.open).toBe(0);
    },
  ],
  [
    'RFC 4987',
    'a flood does not take a pending connection from a guest that has few',
    () => {
      const bench = new Bench();
      bench.deliver(bench.tcp(SERVER, { flags: TCP_SYN, sequence: 1 }, undefined, { src: NEIGHBOUR }));
      for (const src of ['10.0.2.20', '10.0.2.21', '10.0.2.22', '10.0.2.23', '10.0.2.24'])
        for (let port = 1; port <= 1100; port++)
          bench.deliver(
            bench.tcp(SERVER, { sourcePort: port, flags: TCP_SYN, sequence: 1 }, undefined, { src }),
          );
      expect(bench.count('tcpFlows')).toBe(4096);
      bench.host.streams[0]!.accept();
      expect(bench.turn().filter((each) => each.dst === NEIGHBOUR)).toHaveLength(1);
    },
  ],
  [
    'RFC 4987',
    'established connections are no part of that bound',
    () => {
      const bench = new Bench();
      for (let port = 1; port <= 1500; port++) bench.open(SERVER, 80, port);
      expect(bench.count('tcpFlows')).toBe(1500);
      expect(bench.count('tcpPendingEvicted')).toBe(0);
    },
  ],
  [
    'limits',
    "one guest's buffers are bounded, and another still moves bytes",
    () => {
      const bench = new Bench({ mtuBytes: 65_520 });
      // Hosts that send without end to a guest that acknowledges nothing, by connections that the path makes large.
      for (let port = 1; port <= 3000; port++) {
        bench.open(SERVER, 80, port);
        const stream = bench.host.streams.at(-1)!;
        stream.read = (_buf, _off, len) => len;
        stream.sink.readable();
        bench.turn();
      }
      expect(bench.count('tcpBufferBytes')).toBeGreaterThan(100 * 1024 * 1024);
      expect(bench.count('tcpBufferBytes')).toBeLessThanOrEqual(128 * 1024 * 1024);
      bench.host.onConnect = () => 'accept';
      const ports = { sourcePort: 6000, destinationPort: 80 };
      const fields = { src: NEIGHBOUR };
      bench.deliver(
        bench.tcp(SERVER, { ...ports, flags: TCP_SYN, sequence: 1000, mss: 1460 }, undefined, fields),
      );
      const synAck = bench.turn().find((each) => each.dst === NEIGHBOUR);
      const acknowledgment = (synAck!.tcp!.sequence + 1) | 0;
      bench.deliver(
        bench.tcp(SERVER, { ...ports, flags: TCP_ACK, sequence: 1001, acknowledgment }, undefined, fields),
      );
      bench.turn();
      bench.host.streams.at(-1)!.push(pattern(1000));
      const carried = bench.turn().filter((each) => each.dst === NEIGHBOUR);
      expect(payloadOf(carried)).toEqual(pattern(1000));
    },
  ],
  [
    'flows',
    'each flow is shown with its ends, age, bytes and round-trip time',
    () => {
      const bench = new Bench();
      const { sequence, acknowledgment } = bench.open();
      bench.exchange(bench.tcp(SERVER, { flags: TCP_ACK, sequence, acknowledgment }, bytes('hello')));
      bench.exchange(bench.udp(SERVER, 9000, bytes('abc')), bench.ping(SERVER, pattern(8)));
      bench.advance(5000);
      expect([...bench.stack.flows()]).toMatchObject([
        {
          protocol: 'tcp',
          initiator: 'guest',
          guest: `${GUEST}:6000`,
          target: `${SERVER}:80`,
          state: 'established',
          ageMs: 5000,
          idleMs: 5000,
          bytesFromGuest: 5,
          bytesToGuest: 0,
        },
        { protocol: 'udp', guest: `${GUEST}:5000`, target: '*', bytesFromGuest: 3 },
        { protocol: 'icmp', guest: `${GUEST}:7` },
      ]);
    },
  ],
]);
