import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Host, HostStream, StreamSink } from '../flow/host.ts';
import { requireSocketForward } from '../plan.ts';
import { formatEndpoint, parseAddress } from '../wire/address.ts';
import { readAccepted, SocketForwards } from './socket-forwards.ts';

const message = (text: string): Buffer => {
  const length = Buffer.alloc(2);
  length.writeUInt16LE(Buffer.byteLength(text));
  return Buffer.concat([length, Buffer.from(text)]);
};

/** The host and the socket's server, with what each is asked and the guest's side is told. */
function bench(...rules: { prefix: string; port: number; path: string }[]) {
  const asked: string[] = [];
  const told: string[] = [];
  const written: Buffer[] = [];
  const incoming: number[] = [];
  let server: StreamSink | undefined;
  const stream: HostStream = {
    read: (buf, off, len) => {
      const chunk = incoming.splice(0, len);
      buf.set(chunk, off);
      return chunk.length;
    },
    write: (buf, off, len) => {
      written.push(Buffer.from(buf.subarray(off, off + len)));
      return len;
    },
    shutdown() {},
    reset: () => void told.push('reset'),
    close: () => void told.push('closed'),
  };
  const host = new SocketForwards(
    {
      connect: (addr: Uint8Array, off: number, port: number) => {
        asked.push(formatEndpoint(addr, off, port));
        return stream;
      },
    } as unknown as Host,
    rules.map(requireSocketForward),
    (path, sink) => {
      asked.push(path);
      server = sink;
      return stream;
    },
  );
  const guest: StreamSink = {
    connected: () => void told.push('connected'),
    readable: () => void told.push('readable'),
    writable() {},
    failed: (error) => void told.push(error),
  };
  return {
    asked,
    told,
    written,
    connect: (address: string, port: number) =>
      host.connect(parseAddress(address)!, 0, port, 0, 0, guest, parseAddress('192.168.65.3')!) as HostStream,
    answer: (bytes: Uint8Array) => {
      incoming.push(...bytes);
      server!.readable();
    },
    server: () => server!,
  };
}

describe('a forward to a unix socket', () => {
  test('takes what goes to its prefix and port, the first that fits; the rest goes its way', () => {
    const { asked, connect } = bench(
      { prefix: '10.1.0.0/16', port: 443, path: '/run/tls' },
      { prefix: '10.0.0.0/8', port: 0, path: '/run/any' },
      { prefix: 'fd00::/8', port: 0, path: '/run/six' },
    );
    connect('10.1.2.3', 443);
    connect('10.1.2.3', 80);
    connect('11.0.0.1', 443);
    connect('fd12::1', 22);
    connect('fe00::1', 22);
    expect(asked).toEqual(['/run/tls', '/run/any', '11.0.0.1:443', '/run/six', '[fe00::1]:22']);
  });

  test('is asked with the destination, and is the guest’s once it says yes, with what comes behind', () => {
    const { told, written, connect, answer, server } = bench({
      prefix: '10.0.0.0/8',
      port: 0,
      path: '/run/x',
    });
    const stream = connect('10.1.2.3', 443);
    server().connected();
    expect(written[0]!.readUInt16LE(0)).toBe(written[0]!.length - 2);
    expect(JSON.parse(written[0]!.toString('utf8', 2))).toEqual({
      protocol: 'tcp',
      src_ip: '192.168.65.3',
      src_port: 0,
      dst_ip: '10.1.2.3',
      dst_port: 443,
    });
    const yes = message('{"accepted":true}');
    answer(yes.subarray(0, 5));
    expect(told).toEqual([]);
    answer(Buffer.concat([yes.subarray(5), Buffer.from('hello')]));
    expect(told).toEqual(['connected', 'readable']);
    const buf = new Uint8Array(8);
    expect(Buffer.from(buf.subarray(0, stream.read(buf, 0, 8))).toString()).toBe('hello');
  });

  test.each([['{"accepted":false}'], ['{"accepted":"true"}'], ['null'], ['[]'], ['not JSON'], ['']])(
    'refuses the guest when it says %j',
    (text) => {
      const { told, connect, answer, server } = bench({ prefix: '0.0.0.0/0', port: 0, path: '/run/x' });
      connect('10.1.2.3', 443);
      server().connected();
      answer(message(text));
      expect(told).toEqual(['closed', 'ECONNREFUSED']);
    },
  );

  test('never throws at an answer, nor waits for more than it announces', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        const end = readAccepted(bytes);
        const announced = bytes.length < 2 ? Number.POSITIVE_INFINITY : 2 + bytes[0]! + bytes[1]! * 256;
        expect(end === undefined).toBe(bytes.length < announced);
      }),
    );
  });

  test.each([
    [{ prefix: '10.0.0.0/33', port: 0, path: '/x' }, /"10\.0\.0\.0\/33" is no destination/],
    [{ prefix: 'x', port: 0, path: '/x' }, /"x" is no destination/],
    [{ prefix: '10.0.0.0/8/8', port: 0, path: '/x' }, /no destination/],
    [{ prefix: '10.0.0.0/8', port: 65_536, path: '/x' }, /needs a port from 0 to 65535/],
    [{ prefix: '10.0.0.0/8', port: 1, path: 'x' }, /path of a unix socket/],
  ])('%j is refused with what is wrong', (forward, reason) => {
    expect(() => requireSocketForward(forward)).toThrow(reason);
  });
});
