/**
 * A whole network against the kernel's own stack: namespaces with a TAP each, real programs in them, and the servers of
 * this process on the other side.
 */
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import dgram from 'node:dgram';
import { once } from 'node:events';
import { closeSync, readdirSync, readlinkSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { compiledEntry } from '#common/entry';
import { type Attachment, createNetstack, type Network } from '#netstack';
import { Netns } from '../support/netns.ts';
import { lacking } from '../support/requirements.ts';

const SUBNET = '10.213.0.0/24';
const GATEWAY = '10.213.0.1';
const BULK_BYTES = 50 << 20;

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

async function tcpServer(onConnection: (socket: net.Socket) => void): Promise<number> {
  const server = net.createServer({ allowHalfOpen: true }, onConnection);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(() => server.close());
  return (server.address() as net.AddressInfo).port;
}

async function httpServer(handler: http.RequestListener): Promise<number> {
  const server = http.createServer(handler);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as net.AddressInfo).port;
}

const sha256 = (data: Buffer): string => createHash('sha256').update(data).digest('hex');

/** Descriptors of this process, by what they are. */
function descriptors(): Map<string, string> {
  const found = new Map<string, string>();
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      found.set(fd, readlinkSync(`/proc/self/fd/${fd}`));
    } catch {
      // The descriptor by which the folder was read.
    }
  }
  return found;
}

describe.skipIf(lacking('root', '/dev/net/tun', 'ip', 'curl', 'ping', 'dig'))(
  'a network of namespaces',
  () => {
    let network: Network;
    let a: Netns;
    let b: Netns;
    let guestA: Attachment;
    let guestB: Attachment;

    beforeAll(async () => {
      network = await createNetstack({ name: 'interop', subnet: SUBNET, dnsUpstreams: ['127.0.0.1#9'] });
      a = new Netns();
      b = new Netns();
      guestA = await network.attach({ namespacePath: a.path, interfaceName: 'eth0', names: ['alpha'] });
      guestB = await network.attach({ namespacePath: b.path, interfaceName: 'eth0', names: ['beta', 'bee'] });
    });

    afterAll(async () => {
      await network?.close();
      await a?.remove();
      await b?.remove();
    });

    test('gives addresses in order, and MACs as docker does', () => {
      expect([guestA.address, guestA.mac]).toEqual(['10.213.0.2', '02:42:0a:d5:00:02']);
      expect([guestB.address, guestB.mac]).toEqual(['10.213.0.3', '02:42:0a:d5:00:03']);
      expect([guestA.gateway, guestA.prefixLength]).toEqual([GATEWAY, 24]);
    });

    describe('from guest to host', () => {
      test('50 MB come down whole', async () => {
        const body = randomBytes(BULK_BYTES);
        const port = await httpServer((_request, response) => response.end(body));
        const { stdout } = await a.run(
          'sh',
          '-c',
          `curl -sS --max-time 50 http://${GATEWAY}:${port}/ | sha256sum`,
        );
        expect(stdout.slice(0, 64)).toBe(sha256(body));
      });

      test('50 MB go up whole', async () => {
        const hash = createHash('sha256');
        let length = 0;
        const port = await httpServer((request, response) => {
          request.on('data', (chunk: Buffer) => {
            hash.update(chunk);
            length += chunk.length;
          });
          request.on('end', () => response.end(hash.digest('hex')));
        });
        const { stdout, stderr } = await a.run(
          'sh',
          '-c',
          `f=$(mktemp) && head -c ${BULK_BYTES} /dev/urandom > $f && sha256sum < $f && ` +
            `curl -sS --max-time 50 -H Expect: --data-binary @$f http://${GATEWAY}:${port}/; rm $f`,
        );
        expect(stderr).toBe('');
        const [sent, received] = stdout.split('\n');
        expect(received).toBe(sent!.slice(0, 64));
        expect(length).toBe(BULK_BYTES);
      });

      test('a server that reads late holds the guest up and loses nothing', async () => {
        const sockets: net.Socket[] = [];
        let received = 0;
        let ended = false;
        const port = await tcpServer((socket) => {
          socket.pause();
          sockets.push(socket);
          socket.on('error', () => {});
          socket.on('data', (chunk) => {
            received += chunk.length;
          });
          socket.on('end', () => {
            ended = true;
            socket.end();
          });
          socket.pause();
        });
        const total = 64 << 20;
        const client = a.start(
          process.execPath,
          '-e',
          `const s = require('net').connect(${port}, '${GATEWAY}');
         let left = ${total / (1 << 20)};
         const push = () => { while (left-- > 0) if (!s.write(Buffer.alloc(1 << 20))) return s.once('drain', push); s.end(); };
         push(); setTimeout(() => console.log('stuck', s.bytesWritten < ${total}), 700);`,
        );
        expect(await client.line(/stuck/)).toBe('stuck true');
        sockets[0]!.resume();
        await vi.waitFor(() => expect(ended).toBe(true), { timeout: 20_000 });
        expect(received).toBe(total);
        expect((await client.ended).code).toBe(0);
      });

      test('a refused port is refused', async () => {
        const port = await tcpServer(() => {});
        await closers.pop()!();
        const { code, stderr } = await a.run('curl', '-sS', '--max-time', '5', `http://${GATEWAY}:${port}/`);
        expect([code, stderr]).toEqual([7, expect.stringMatching(/refused|connect/i)]);
      });

      test('each direction of a connection ends by itself', async () => {
        const port = await tcpServer((socket) => {
          let text = '';
          socket.on('data', (data) => {
            text += data;
          });
          socket.on('end', () => socket.end(`${text} back`));
        });
        const answer = await a.node(`
        const s = require('net').connect({ port: ${port}, host: '${GATEWAY}', allowHalfOpen: true });
        s.end('there and'); s.pipe(process.stdout);`);
        expect(answer).toBe('there and back');
      });

      test("a server's RST reaches the guest as a RST", async () => {
        const port = await tcpServer((socket) => socket.once('data', () => socket.resetAndDestroy()));
        const code = await a.node(`
        const s = require('net').connect(${port}, '${GATEWAY}', () => s.write('x'));
        s.on('error', (e) => console.log(e.code));`);
        expect(code).toBe('ECONNRESET');
      });

      test("a guest's RST reaches the server as a RST", async () => {
        let error: NodeJS.ErrnoException | undefined;
        const port = await tcpServer((socket) => {
          socket.on('error', (caught) => {
            error = caught;
          });
          socket.resume();
          socket.write('hello');
        });
        await a.node(`
        const s = require('net').connect(${port}, '${GATEWAY}');
        s.once('data', () => s.resetAndDestroy());`);
        await vi.waitFor(() => expect(error?.code).toBe('ECONNRESET'));
      });

      test('UDP datagrams are answered, small and as large as can be', async () => {
        const echo = dgram.createSocket('udp4', (message, { port, address }) =>
          echo.send(message, port, address),
        );
        echo.bind(0, '127.0.0.1');
        await once(echo, 'listening');
        closers.push(() => echo.close());
        const lengths = await a.node(`
        const s = require('dgram').createSocket('udp4');
        const lengths = [1, 1472, 9000, 60000];
        s.on('message', (m) => { console.log(m.length, m.every((x) => x === 7));
          lengths.shift(); lengths.length ? next() : s.close(); });
        const next = () => s.send(Buffer.alloc(lengths[0], 7), ${echo.address().port}, '${GATEWAY}');
        next(); setTimeout(() => process.exit(1), 8000).unref();`);
        expect(lengths).toBe('1 true\n1472 true\n9000 true\n60000 true');
      });

      test('a closed UDP port is told as ICMP port unreachable', async () => {
        const closed = dgram.createSocket('udp4');
        closed.bind(0, '127.0.0.1');
        await once(closed, 'listening');
        const { port } = closed.address();
        closed.close();
        const code = await a.node(`
        const s = require('dgram').createSocket('udp4');
        s.on('error', (e) => { console.log(e.code); s.close(); });
        s.connect(${port}, '${GATEWAY}', () => s.send('x'));
        setTimeout(() => process.exit(1), 5000).unref();`);
        expect(code).toBe('ECONNREFUSED');
      });

      test('the gateway answers ping, small and in fragments', async () => {
        for (const size of ['56', '20000']) {
          const { code, stdout } = await a.run(
            'ping',
            '-c',
            '2',
            '-i',
            '0.2',
            '-W',
            '3',
            '-s',
            size,
            GATEWAY,
          );
          expect([code, stdout]).toEqual([0, expect.stringContaining('2 received')]);
        }
      });
    });

    describe('from guest to guest', () => {
      test('by ping, without the gateway in between', async () => {
        const { code, stdout } = await a.run('ping', '-c', '2', '-i', '0.2', '-W', '3', guestB.address);
        expect([code, stdout]).toEqual([0, expect.stringMatching(/ttl=64.*2 received/s)]);
      });

      test('by TCP, 50 MB', async () => {
        const server = b.start(
          process.execPath,
          '-e',
          `require('net').createServer((s) => s.end(Buffer.alloc(${BULK_BYTES}, 'drydock'))).listen(80, () => console.log('up'))`,
        );
        await server.line(/up/);
        const received = await a.node(`
        const h = require('crypto').createHash('sha256');
        require('net').connect(80, '${guestB.address}').on('data', (d) => h.update(d)).on('end', () => console.log(h.digest('hex')));`);
        server.kill();
        expect(received).toBe(sha256(Buffer.alloc(BULK_BYTES, 'drydock')));
      });

      test('by name, which follows when it is changed', async () => {
        const ask = async (name: string): Promise<string> =>
          (await a.run('dig', '+short', '+time=2', '+tries=1', `@${GATEWAY}`, name)).stdout.trim();
        expect(await ask('beta')).toBe(guestB.address);
        expect(await ask('bee')).toBe(guestB.address);
        expect(await ask('host.docker.internal')).toBe(GATEWAY);
        await guestB.setNames(['gamma']);
        expect(await ask('gamma')).toBe(guestB.address);
        await network.setHostNames({ 'db.corp': '192.0.2.5' });
        expect(await ask('db.corp')).toBe('192.0.2.5');
        expect(await ask('host.docker.internal')).toBe(GATEWAY);
      });

      test("with a neighbour's address gets nowhere", async () => {
        const thief = new Netns();
        const guest = await network.attach({ namespacePath: thief.path, interfaceName: 'eth0', names: [] });
        try {
          await thief.run('ip', 'addr', 'add', `${guestB.address}/32`, 'dev', 'eth0');
          const spoofed = await thief.run('ping', '-c', '1', '-W', '1', '-I', guestB.address, guestA.address);
          expect(spoofed.code).toBe(1);
          expect((await network.stats()).link_spoofed).toBeGreaterThan(0);
          const honest = await thief.run('ping', '-c', '1', '-W', '3', guestA.address);
          expect(honest.code).toBe(0);
        } finally {
          await guest.detach();
          await thief.remove();
        }
      });
    });

    describe('published ports', () => {
      async function echoServer(netns: Netns, port: number): Promise<void> {
        const server = netns.start(
          process.execPath,
          '-e',
          `require('net').createServer({ allowHalfOpen: true }, (s) => { s.write(s.remoteAddress + ' '); s.pipe(s); }).listen(${port}, '0.0.0.0');
         const u = require('dgram').createSocket('udp4', (m, r) => u.send(r.address + ' ' + m, r.port, r.address));
         u.bind(${port}, () => console.log('up'));`,
        );
        closers.push(() => server.kill());
        await server.line(/up/);
      }

      test('TCP: a client of the loopback reaches the guest and is shown as the gateway', async () => {
        await echoServer(a, 7001);
        const port = await network.publish({
          protocol: 'tcp',
          hostAddress: '127.0.0.1',
          hostPort: 0,
          guestAddress: guestA.address,
          guestPort: 7001,
        });
        closers.push(() => port.close());
        expect(port.hostPort).toBeGreaterThan(0);
        const client = net.connect(port.hostPort, '127.0.0.1');
        client.end('hello');
        let text = '';
        for await (const chunk of client) text += chunk;
        expect(text).toBe(`${GATEWAY} hello`);
      });

      test('TCP: a guest that does not listen resets the client', async () => {
        const port = await network.publish({
          protocol: 'tcp',
          hostAddress: '127.0.0.1',
          hostPort: 0,
          guestAddress: guestA.address,
          guestPort: 7999,
        });
        closers.push(() => port.close());
        const client = net.connect(port.hostPort, '127.0.0.1');
        const [error] = (await once(client, 'error')) as [NodeJS.ErrnoException];
        expect(error.code).toBe('ECONNRESET');
      });

      test('UDP: two clients get their own answers', async () => {
        await echoServer(a, 7002);
        const port = await network.publish({
          protocol: 'udp',
          hostAddress: '127.0.0.1',
          hostPort: 0,
          guestAddress: guestA.address,
          guestPort: 7002,
        });
        closers.push(() => port.close());
        const answers = ['one', 'two'].map(async (word) => {
          const socket = dgram.createSocket('udp4');
          socket.send(word, port.hostPort, '127.0.0.1');
          const [message] = (await once(socket, 'message')) as [Buffer];
          socket.close();
          return message.toString();
        });
        expect(await Promise.all(answers)).toEqual([`${GATEWAY} one`, `${GATEWAY} two`]);
      });

      test('a port in use, or an address of nobody, is said in docker’s words', async () => {
        const port = await tcpServer(() => {});
        const rule = {
          protocol: 'tcp' as const,
          hostAddress: '127.0.0.1',
          hostPort: port,
          guestAddress: guestA.address,
          guestPort: 80,
        };
        await expect(network.publish(rule)).rejects.toMatchObject({
          code: 'ERR_PORT_IN_USE',
          message: `Bind for 127.0.0.1:${port} failed: port is already allocated`,
        });
        await expect(network.publish({ ...rule, hostAddress: '192.0.2.1' })).rejects.toMatchObject({
          code: 'ERR_ADDRESS_NOT_AVAILABLE',
        });
      });

      test('a closed port can be published again at once', async () => {
        const rule = {
          protocol: 'tcp' as const,
          hostAddress: '127.0.0.1',
          hostPort: 0,
          guestAddress: guestA.address,
          guestPort: 80,
        };
        const first = await network.publish(rule);
        await first.close();
        const second = await network.publish({ ...rule, hostPort: first.hostPort });
        await second.close();
        expect(second.hostPort).toBe(first.hostPort);
      });
    });

    describe('attaching', () => {
      test('a process that has gone is told as such, and its address is free again', async () => {
        await expect(
          network.attach({
            namespacePath: '/proc/4194305/ns/net',
            interfaceName: 'eth0',
            names: [],
            address: '10.213.0.77',
          }),
        ).rejects.toMatchObject({ code: 'ERR_GUEST_GONE' });
        const netns = new Netns();
        const guest = await network.attach({
          namespacePath: netns.path,
          interfaceName: 'eth0',
          names: [],
          address: '10.213.0.77',
          mac: '02:00:00:00:00:77',
        });
        expect((await netns.run('cat', '/sys/class/net/eth0/address')).stdout.trim()).toBe(
          '02:00:00:00:00:77',
        );
        await guest.detach();
        expect((await netns.run('ip', '-o', 'link', 'show', 'eth0')).code).not.toBe(0);
        await netns.remove();
      });

      test('a guest does not pace what it sends over a wire without a bottleneck, whatever the host does', async () => {
        const { stdout } = await a.run('cat', '/proc/sys/net/ipv4/tcp_congestion_control');
        expect(['cubic', 'reno']).toContain(stdout.trim());
      });

      test('an address or an interface in use is refused, and so is a name that is none', async () => {
        for (const interfaceName of ['', '..', 'eth/0', 'a-name-that-is-too-long'])
          await expect(
            network.attach({ namespacePath: a.path, names: [], interfaceName }),
          ).rejects.toMatchObject({ code: 'ERR_INTERFACE_NAME' });
        const common = { namespacePath: a.path, names: [] };
        await expect(
          network.attach({ ...common, interfaceName: 'eth1', address: guestB.address }),
        ).rejects.toMatchObject({ code: 'ERR_ADDRESS_IN_USE' });
        await expect(network.attach({ ...common, interfaceName: 'eth0' })).rejects.toMatchObject({
          code: 'ERR_INTERFACE_EXISTS',
        });
      });
    });
  },
);

describe.skipIf(lacking('root', '/dev/net/tun', 'ip'))('the end of a network', () => {
  test('close() ends connections and leaves neither interface nor descriptor', async () => {
    const before = [...descriptors().values()].sort();
    const network = await createNetstack({ name: 'brief', subnet: '10.214.0.0/24' });
    const netns = new Netns();
    try {
      await network.attach({ namespacePath: netns.path, interfaceName: 'eth0', names: [] });
      let closed = false;
      const server = net.createServer((socket) => {
        socket.on('error', () => {});
        socket.on('close', () => {
          closed = true;
        });
      });
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      const { port } = server.address() as net.AddressInfo;
      const client = netns.start(
        process.execPath,
        '-e',
        `const s = require('net').connect(${port}, '10.214.0.1', () => console.log('up')); s.on('error', () => {});`,
      );
      await client.line(/up/);
      await network.close();
      await vi.waitFor(() => expect(closed).toBe(true));
      expect((await netns.run('ip', '-o', 'link', 'show', 'eth0')).code).not.toBe(0);
      client.kill();
      await client.ended;
      server.close();
      await once(server, 'close');
    } finally {
      await network.close();
      await netns.remove();
    }
    await vi.waitFor(() => expect([...descriptors().values()].sort()).toEqual(before));
    await expect(network.stats()).rejects.toMatchObject({ code: 'ERR_NETWORK_CLOSED' });
  });

  test('a hundred guests that came, published, were called and left, leave no descriptor, flow or port behind', async () => {
    const network = await createNetstack({ name: 'busy', subnet: '10.216.0.0/24' });
    const netns = new Netns();
    const round = async (): Promise<void> => {
      const guest = await network.attach({
        namespacePath: netns.path,
        interfaceName: 'eth0',
        names: ['one'],
      });
      const rule = { hostAddress: '127.0.0.1', hostPort: 0, guestAddress: guest.address, guestPort: 9 };
      const tcp = await network.publish({ ...rule, protocol: 'tcp' });
      const udp = await network.publish({ ...rule, protocol: 'udp' });
      const client = net.connect(tcp.hostPort, '127.0.0.1').on('error', () => {});
      // Nobody listens in the guest, so the client is reset.
      await new Promise((resolve) => client.once('close', resolve));
      const sender = dgram.createSocket('udp4');
      await new Promise((resolve) => sender.send('x', udp.hostPort, '127.0.0.1', resolve));
      sender.close();
      await udp.close();
      await tcp.close();
      await guest.detach();
    };
    const held = async (): Promise<unknown> => {
      const { tcpFlows, udpMappings, guests, publications, leases, neighbours } = await network.stats();
      const open = [...descriptors().values()].sort();
      return { open, tcpFlows, udpMappings, guests, publications, leases, neighbours };
    };
    try {
      await round();
      const before = await held();
      for (let i = 0; i < 100; i++) await round();
      await vi.waitFor(async () => expect(await held()).toEqual(before));
    } finally {
      await network.close();
      await netns.remove();
    }
  });

  test('a thread that fails is told to whoever asks', async () => {
    const before = descriptors();
    const network = await createNetstack({ name: 'failing', subnet: '10.215.0.0/24' });
    // Its loop finds its epoll descriptor gone: the newest one, since libuv's of that thread was made before.
    const made = [...descriptors()].filter(
      ([fd, what]) => what.includes('eventpoll') && before.get(fd) !== what,
    );
    closeSync(Math.max(...made.map(([fd]) => Number(fd))));
    await expect(
      vi.waitFor(async () => {
        await network.stats();
        throw new Error('still alive');
      }),
    ).rejects.toMatchObject({ code: 'ERR_NETWORK_FAILED' });
    await network.close();
  });

  test('process.exit() does not wait for a running network', async () => {
    const script = `
      import { createNetstack } from ${JSON.stringify(compiledEntry('netstack/index'))};
      const network = await createNetstack({ name: 'exits', subnet: '10.216.0.0/24' });
      console.log(JSON.stringify(await network.stats()).length > 2);
      process.exit(7);`;
    const run = promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], {
      timeout: 10_000,
    });
    await expect(run).rejects.toMatchObject({ code: 7, stdout: 'true\n' });
  });
});
