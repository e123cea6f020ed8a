/** Conversations of a guest with the stack: frames in, sockets asked, frames out. */
import { describe, expect, it } from 'vitest';
import { TCP_ACK, TCP_FIN, TCP_PSH, TCP_RST, TCP_SYN } from '../../netstack/wire/tcp.ts';
import { Bench, GATEWAY, GUEST, GUEST_MAC, SERVER } from '../support/netstack/bench.ts';
import { bytes, pattern } from '../support/netstack/frames.ts';

describe('ARP', () => {
  it('answers a request for the gateway', () => {
    const bench = new Bench();
    const [reply] = bench.introduce();
    expect(reply?.ethernet.dst).toBe(GUEST_MAC);
    expect(reply?.arp).toMatchObject({ op: 2, senderMac: 0x020000000001, targetMac: GUEST_MAC });
  });
});

describe('UDP', () => {
  it('goes out through a socket of the host and back', () => {
    const bench = new Bench();
    expect(bench.exchange(bench.udp(SERVER, 9000, bytes('question')))).toEqual([]);
    const [socket] = bench.host.datagrams;
    expect(socket?.sent).toEqual([
      { address: SERVER, port: 9000, ttl: 63, trafficClass: 0, payload: bytes('question') },
    ]);
    socket!.receive(SERVER, 9000, bytes('answer'));
    const [answer] = bench.turn();
    expect(answer).toMatchObject({ src: SERVER, dst: GUEST, checksumRight: true });
    expect(answer?.udp).toMatchObject({ srcPort: 9000, dstPort: 5000 });
    expect(answer?.payload).toEqual(bytes('answer'));
  });

  it('reaches the loopback of the host at the gateway, which seems to answer itself', () => {
    const bench = new Bench();
    bench.exchange(bench.udp(GATEWAY, 9000, bytes('x')));
    const [socket] = bench.host.datagrams;
    expect(socket?.sent[0]).toMatchObject({ address: '127.0.0.1', ttl: 0 });
    socket!.receive('127.0.0.1', 9000, bytes('y'));
    expect(bench.turn()[0]).toMatchObject({ src: GATEWAY });
  });
});

describe('ICMP echo', () => {
  it('of the gateway is answered at any size', () => {
    const bench = new Bench();
    const [reply] = bench.exchange(bench.ping(GATEWAY, pattern(56)));
    expect(reply?.icmp).toMatchObject({ type: 0, rest: 0x70001 });
    expect(reply?.payload).toEqual(pattern(56));
  });
});

describe('TCP', () => {
  it('answers a SYN only when the host is connected', () => {
    const bench = new Bench();
    expect(bench.exchange(bench.tcp(SERVER, { flags: TCP_SYN, sequence: 1000, mss: 1460 }))).toEqual([]);
    const [stream] = bench.host.streams;
    expect(stream).toMatchObject({ address: SERVER, port: 80, ttl: 63 });
    stream!.accept();
    const [synAck] = bench.turn();
    expect(synAck?.tcp).toMatchObject({ flags: TCP_SYN | TCP_ACK, acknowledgment: 1001, mss: 1460 });
    expect(synAck?.checksumRight).toBe(true);
  });

  it('answers a refused connect with RST', () => {
    const bench = new Bench();
    bench.exchange(bench.tcp(SERVER, { flags: TCP_SYN, sequence: 1000 }));
    bench.host.streams[0]!.fail('ECONNREFUSED');
    const [reset] = bench.turn();
    expect(reset?.tcp).toMatchObject({ flags: TCP_RST | TCP_ACK, acknowledgment: 1001 });
    expect(bench.count('tcpFlows')).toBe(0);
  });

  it('carries bytes both ways and half-closes both ways', () => {
    const bench = new Bench();
    const { sequence, acknowledgment } = bench.open();
    const [stream] = bench.host.streams;
    const request = bench.tcp(
      SERVER,
      { flags: TCP_ACK | TCP_PSH | TCP_FIN, sequence, acknowledgment },
      bytes('GET /'),
    );
    bench.exchange(request);
    expect(stream!.text).toBe('GET /');
    expect(stream!.isShutdown).toBe(true);
    stream!.push(bytes('200'));
    const frames = bench.turn();
    expect(frames.map((each) => String.fromCharCode(...each.payload)).join('')).toBe('200');
    stream!.end();
    const [fin] = bench.turn();
    expect(fin!.tcp!.flags & TCP_FIN).toBe(TCP_FIN);
    expect(stream!.isClosed).toBe(true);
    bench.exchange(
      bench.tcp(SERVER, { flags: TCP_ACK, sequence: sequence + 6, acknowledgment: acknowledgment + 4 }),
    );
    bench.advance(60_000);
    expect(bench.count('tcpFlows')).toBe(0);
  });
});
