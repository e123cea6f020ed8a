/** Networks of jails without a namespace: what their proxies understand, whom they let through, and what is published. */

import { createServer as createHttpServer } from 'node:http';
import { createServer, type Server, Socket } from 'node:net';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { seededRng } from '#common/rng';
import type { NetworkOptions } from '#netstack';
import type { EngineNetwork } from '../engine-network.ts';
import { type JailAccess, ProxiedJails } from './jails.ts';
import { withJails } from './network.ts';
import { noStack } from './no-stack.ts';

const closers: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

const listen = (server: Server): Promise<number> =>
  new Promise((resolve) => {
    closers.push(() => new Promise((closed) => server.close(closed)));
    server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port));
  });
/** A program that says its name, and then what it hears. */
const speaker = (name: string): Promise<number> =>
  listen(
    createServer((socket) => {
      socket.on('error', () => {});
      socket.write(`${name}:`);
      socket.pipe(socket);
    }),
  );

const jails = new ProxiedJails(seededRng(1));
let pids = 1000;

interface Member {
  access: JailAccess;
  address: string;
  password: string;
}

/** A jail on networks, under a name, with the ports that it declares. */
async function member(networks: EngineNetwork[], name: string, ports: number[] = []): Promise<Member> {
  const access = await jails.open(ports.map((port) => ({ port, protocol: 'tcp' as const })));
  closers.push(() => access.close());
  const pid = pids++;
  access.knownAs(pid);
  let address = '';
  for (const network of networks)
    ({ address } = await network.attach({ pid, interfaceName: 'eth0', names: [name] }));
  const password = /jail:([0-9a-f]+)@/.exec(access.environment.join())![1]!;
  return { access, address, password };
}

const network = async (options: Partial<NetworkOptions> = {}): Promise<EngineNetwork> => {
  const made = await withJails(jails, noStack)({ name: 'net', subnet: '10.9.0.0/24', ...options });
  await made.setHostNames({ 'host.docker.internal': made.gateway });
  return made;
};

/** Sends bytes to a proxy, each piece alone, and gives what it says until it ends, or until `enough` of it is there. */
function talk(
  port: number,
  pieces: Uint8Array[],
  enough = Number.POSITIVE_INFINITY,
  ends = enough === Number.POSITIVE_INFINITY,
): Promise<Buffer> {
  return new Promise((resolve) => {
    const socket = new Socket();
    let heard = Buffer.alloc(0);
    const end = (): void => {
      socket.destroy();
      resolve(heard);
    };
    socket.setNoDelay(true);
    socket.on('data', (bytes) => {
      heard = Buffer.concat([heard, bytes]);
      if (heard.length >= enough) end();
    });
    socket.on('error', end);
    socket.on('close', end);
    socket.connect(port, '127.0.0.1', () => {
      for (const piece of pieces) socket.write(piece);
      if (ends) socket.end();
    });
  });
}

const hello = (password: string): Buffer =>
  Buffer.concat([
    Buffer.from([5, 1, 2, 1, 1]),
    Buffer.from('j'),
    Buffer.from([password.length]),
    Buffer.from(password),
  ]);
const greeted = 4;
function request(host: string | Uint8Array, port: number, command = 1): Buffer {
  const named = typeof host === 'string';
  const bytes = named ? Buffer.from(host) : Buffer.from(host);
  const kind = named ? [3, bytes.length] : [bytes.length === 4 ? 1 : 4];
  return Buffer.concat([Buffer.from([5, command, 0, ...kind]), bytes, Buffer.from([port >> 8, port & 255])]);
}
/** The code by which SOCKS answers a request. */
async function socksCode({ access, password }: Member, asked: Buffer): Promise<number> {
  const said = await talk(access.proxyPort, [hello(password), asked], greeted + 10);
  return said[greeted + 1]!;
}

describe('the proxy of a jail', () => {
  it('speaks SOCKS, however its bytes are cut, and carries both ways', async () => {
    const net = await network();
    const port = await speaker('db');
    await member([net], 'db', [port]);
    const { access, password } = await member([net], 'web');
    const all = Buffer.concat([hello(password), request('db', port), Buffer.from('ping')]);
    for (const size of [all.length, 1, 7]) {
      const pieces = Array.from({ length: Math.ceil(all.length / size) }, (_, index) =>
        all.subarray(index * size, (index + 1) * size),
      );
      const said = await talk(access.proxyPort, pieces, greeted + 10 + 'db:ping'.length);
      expect(said.subarray(greeted + 10).toString()).toBe('db:ping');
    }
  });

  it('refuses in the codes of RFC 1928', async () => {
    const net = await network();
    const port = await speaker('db');
    const db = await member([net], 'db', [port]);
    const web = await member([net], 'web');
    const address = Uint8Array.from(db.address.split('.').map(Number));
    expect(await socksCode(web, request(address, port))).toBe(0);
    // Not a port of its own; this machine itself; nobody there; UDP; an address of no kind.
    expect(await socksCode(web, request('db', 1))).toBe(2);
    expect(await socksCode(web, request('localhost', port))).toBe(2);
    expect(await socksCode(web, request(Uint8Array.from([...Array(15).fill(0), 1]), port))).toBe(2);
    expect(await socksCode(web, request(Uint8Array.from([127, 9, 9, 9]), port))).toBe(2);
    const mapped = [...Array(10).fill(0), 255, 255, 127, 0, 0, 1];
    expect(await socksCode(web, request(Uint8Array.from(mapped), port))).toBe(2);
    expect(await socksCode(web, request(net.gateway, 1))).toBe(5);
    expect(await socksCode(web, request('db', port, 3))).toBe(7);
    expect(await socksCode(web, Buffer.from([5, 1, 0, 9, 0, 0]))).toBe(8);
  });

  it('serves nobody without its password', async () => {
    const { access } = await member([await network()], 'web');
    expect((await talk(access.proxyPort, [hello('0'.repeat(32)), request('db', 1)])).toString('hex')).toBe(
      '05020101',
    );
    expect((await talk(access.proxyPort, [Buffer.from([5, 1, 0])])).toString('hex')).toBe('05ff');
    const basic = `proxy-authorization: Basic ${Buffer.from('jail:wrong').toString('base64')}\r\n`;
    for (const line of ['CONNECT db:1 HTTP/1.1', 'GET http://db/ HTTP/1.1'])
      for (const header of ['', basic]) {
        const said = await talk(access.proxyPort, [Buffer.from(`${line}\r\nhost: db\r\n${header}\r\n`)]);
        expect(said.toString()).toMatch(/^HTTP\/1\.1 407 .*\r\n(.*\r\n)*proxy-authenticate: Basic/i);
      }
  });

  it('forwards requests with a whole address, without what is for the proxy alone', async () => {
    const net = await network();
    const port = await listen(
      createHttpServer(({ headers, url, method }, response) =>
        response.end(
          JSON.stringify({ url, method, proxy: Object.keys(headers).filter((name) => /proxy/.test(name)) }),
        ),
      ),
    );
    await member([net], 'api', [port]);
    const { access, password } = await member([net], 'web');
    const basic = `proxy-authorization: basic ${Buffer.from(`jail:${password}`).toString('base64')}\r\n`;
    const ask = async (line: string): Promise<string> => {
      const headers = `host: x\r\nproxy-connection: close\r\nconnection: close\r\n${basic}`;
      const bytes = Buffer.from(`${line} HTTP/1.1\r\n${headers}\r\n`);
      return (await talk(access.proxyPort, [bytes], Number.POSITIVE_INFINITY, false)).toString();
    };
    expect(await ask(`GET http://api:${port}/a?b`)).toContain('{"url":"/a?b","method":"GET","proxy":[]}');
    expect(await ask('GET /a')).toMatch(/^HTTP\/1\.1 400 /);
    expect(await ask('GET http://api:1/')).toMatch(
      /^HTTP\/1\.1 403 [\s\S]*port 1 is not one of the container/,
    );
    expect(await ask('CONNECT api')).toMatch(/^HTTP\/1\.1 400 /);
    expect(await ask('CONNECT [no]:1')).toMatch(/^HTTP\/1\.1 400 /);
  });

  it('bears whatever is sent to it', async () => {
    const { access, password } = await member([await network()], 'web');
    const start = fc.constantFrom(
      Buffer.alloc(0),
      Buffer.from([5]),
      hello(password),
      Buffer.from('CONNECT '),
    );
    await fc.assert(
      fc.asyncProperty(start, fc.uint8Array({ maxLength: 60 }), async (first, rest) => {
        await talk(access.proxyPort, [first, rest]);
      }),
      { numRuns: 60 },
    );
    expect((await talk(access.proxyPort, [Buffer.from([5, 1, 0])])).toString('hex')).toBe('05ff');
  });
});

describe('networks that jails join', () => {
  it('keep to themselves: internal, isolated, and each other', async () => {
    const port = await speaker('db');
    const [open, inside, apart] = [
      await network(),
      await network({ internal: true, subnet: '10.8.0.0/24' }),
      await network({ isolated: true, subnet: '10.7.0.0/24' }),
    ];
    await member([open], 'on-open', [port]);
    await member([inside], 'on-inside', [port]);
    await member([apart], 'on-apart', [port]);
    const codes = async (networks: EngineNetwork[], names: string[]): Promise<number[]> => {
      const asking = await member(networks, 'asking');
      const found: number[] = [];
      for (const name of names) found.push(await socksCode(asking, request(name, port)));
      return found;
    };
    const names = ['on-inside', 'host.docker.internal', '198.51.100.1'];
    // Its neighbour; the host; the outside, which all refuse.
    expect(await codes([inside], names)).toEqual([0, 2, 2]);
    expect(await codes([apart], ['on-apart', 'host.docker.internal'])).toEqual([2, 0]);
    expect(await codes([inside, open], ['on-open', 'on-inside', 'host.docker.internal'])).toEqual([0, 0, 0]);
    expect(await codes([], ['on-open'])).toEqual([2]);
  });

  it('give addresses, take them back, and go by the names of the moment', async () => {
    const net = await network({ subnet: '10.6.0.0/30' });
    const port = await speaker('one');
    const access = await jails.open([{ port, protocol: 'tcp' }]);
    closers.push(() => access.close());
    access.knownAs(1);
    const attached = await net.attach({ pid: 1, interfaceName: 'eth0', names: ['old'] });
    expect([attached.address, attached.prefixLength, attached.gateway]).toEqual(['10.6.0.2', 30, '10.6.0.1']);
    await expect(member([net], 'two')).rejects.toThrow(/no address left/);
    await attached.setNames(['new']);
    await attached.detach();
    expect((await member([net], 'two')).address).toBe('10.6.0.2');
    await expect(net.attach({ pid: 5, interfaceName: 'eth0', names: [] })).rejects.toThrow(
      /carries no packets/,
    );
  });

  it('publish ports of jails, but no UDP, and their own number on all addresses alone', async () => {
    const net = await network();
    const port = await speaker('web');
    const { address } = await member([net], 'web', [port]);
    const wish = {
      protocol: 'tcp' as const,
      hostAddress: '127.0.0.1',
      hostPort: 0,
      guestAddress: address,
      guestPort: port,
    };
    const published = await net.publish(wish);
    expect((await talk(published.hostPort, [Buffer.from('!')], 5)).toString()).toBe('web:!');
    await expect(net.publish({ ...wish, hostPort: published.hostPort })).rejects.toMatchObject({
      code: 'ERR_PORT_IN_USE',
    });
    await published.close();
    await expect(net.publish({ ...wish, protocol: 'udp' })).rejects.toThrow(/no UDP/);
    await expect(net.publish({ ...wish, hostPort: port })).rejects.toThrow(/by another number/);
    const same = await net.publish({ ...wish, hostAddress: '0.0.0.0', hostPort: port });
    expect(same.hostPort).toBe(port);
    await same.close();
  });
});
