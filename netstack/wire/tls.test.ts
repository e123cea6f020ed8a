import { once } from 'node:events';
import net from 'node:net';
import tls from 'node:tls';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { inputs } from '../../test/support/fuzz/inputs.ts';
import { CLIENT_HELLO_BYTES_MAX, readClientHello } from './tls.ts';

/** The first bytes that Node's TLS client sends. */
async function helloOf(options: tls.ConnectionOptions): Promise<Uint8Array> {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  const client = tls.connect({ host: '127.0.0.1', port, ...options }).on('error', () => {});
  const [socket] = (await once(server, 'connection')) as [net.Socket];
  const [bytes] = (await once(socket, 'data')) as [Buffer];
  client.destroy();
  socket.destroy();
  server.close();
  return Uint8Array.from(bytes);
}

/** A ClientHello of version 1.2 without extensions but a server name, by hand. */
function handmade(name: string): Uint8Array {
  const host = [...name].map((char) => char.charCodeAt(0));
  const sni = [0, 0, 0, host.length + 5, 0, host.length + 3, 0, 0, host.length, ...host];
  const body = [3, 3, ...new Array<number>(32).fill(7), 0, 0, 2, 0x13, 0x01, 1, 0, 0, sni.length, ...sni];
  return Uint8Array.from([22, 3, 1, 0, body.length + 4, 1, 0, 0, body.length, ...body]);
}

describe('a ClientHello', () => {
  test('of a TLS 1.3 and of a TLS 1.2 client shows its name', async () => {
    for (const maxVersion of ['TLSv1.3', 'TLSv1.2'] as const) {
      const bytes = await helloOf({ servername: 'WWW.example.com', maxVersion });
      expect(readClientHello(bytes, bytes.length)).toEqual({ name: 'www.example.com' });
    }
  });

  test('without a name has none', async () => {
    const bytes = await helloOf({ servername: '' });
    expect(readClientHello(bytes, bytes.length)).toEqual({ name: undefined });
  });

  test('is waited for until it is whole, in whatever pieces it comes', () => {
    const bytes = handmade('a.test');
    for (let len = 0; len < bytes.length; len++) expect(readClientHello(bytes, len)).toBe('more');
    expect(readClientHello(bytes, bytes.length)).toEqual({ name: 'a.test' });
  });

  test('RFC 8446 5.1: may lie in several records', () => {
    const bytes = handmade('a.test');
    const body = [...bytes.subarray(5)];
    const split = Uint8Array.from([
      22,
      3,
      1,
      0,
      10,
      ...body.slice(0, 10),
      22,
      3,
      1,
      0,
      body.length - 10,
      ...body.slice(10),
    ]);
    for (let len = 0; len < split.length; len++) expect(readClientHello(split, len)).toBe('more');
    expect(readClientHello(split, split.length)).toEqual({ name: 'a.test' });
  });

  test.each([
    ['HTTP', 'GET / HTTP/1.1'],
    ['ssh', 'SSH-2.0-x'],
    ['an alert', '\x15\x03\x01\x00\x02\x02\x00'],
    ['another handshake message', '\x16\x03\x01\x00\x04\x02\x00\x00\x00'],
    ['an empty record', '\x16\x03\x01\x00\x00'],
    ['a hello longer than is waited for', '\x16\x03\x01\x00\x04\x01\xff\xff\xff'],
  ])('is not %s: no name', (_, text) => {
    const bytes = Uint8Array.from(text, (char) => char.charCodeAt(0));
    expect(readClientHello(bytes, bytes.length)).toEqual({ name: undefined });
  });

  test('with a name that is none has none', () => {
    const bytes = handmade('a b/..');
    expect(readClientHello(bytes, bytes.length)).toEqual({ name: undefined });
  });

  test('of hostile bytes makes the reader neither throw nor wait beyond its limit', () => {
    const good = handmade('a.test');
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 200 }),
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 8 }),
        (tail, edits) => {
          const bytes = Uint8Array.from([...good, ...tail]);
          for (const [at, value] of edits) bytes[at % bytes.length] = value;
          readClientHello(bytes, bytes.length);
        },
      ),
      { numRuns: inputs(2000) },
    );
    const endless = new Uint8Array(CLIENT_HELLO_BYTES_MAX + 10);
    endless.set([22, 3, 1, 0xff, 0xff, 1, 0, 0xff, 0xff]);
    expect(readClientHello(endless, endless.length)).toEqual({ name: undefined });
  });
});
