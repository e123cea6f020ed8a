/**
 * Our TCP against the kernel's, through a real TAP: the kernel's settings are varied in a namespace of its own, and its
 * packet filter loses packets. What goes across is compared byte for byte.
 */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { createNetstack, type Network, type PublishedPort } from '#netstack';
import { Netns, type Running } from '../support/netns.ts';
import { lacking } from '../support/requirements.ts';

const GATEWAY = '10.215.0.1';
const BYTES = 8 << 20;

const body = randomBytes(BYTES);
const digest = createHash('sha256').update(body).digest('hex');

function deferred<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve!: (value: T) => void;
  const promise = new Promise<T>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}

describe.skipIf(lacking('root', '/dev/net/tun', 'ip', 'curl', 'nft', 'ss', 'perl'))(
  'TCP with a kernel',
  () => {
    let network: Network;
    let guest: Netns;
    let server: http.Server;
    let url: string;
    const closers: (() => unknown)[] = [];

    beforeAll(async () => {
      network = await createNetstack({
        name: 'tcp-kernel',
        subnet: '10.215.0.0/24',
        dnsUpstreams: ['127.0.0.1#9'],
      });
      guest = new Netns();
      await network.attach({ namespacePath: guest.path, interfaceName: 'eth0', names: ['guest'] });
      // GET gives the body, PUT answers with the digest of what it got.
      server = http.createServer((request, response) => {
        if (request.method === 'GET') {
          response.end(body);
          return;
        }
        const hash = createHash('sha256');
        request.on('data', (chunk: Buffer) => hash.update(chunk));
        request.on('end', () => response.end(hash.digest('hex')));
      });
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      url = `http://${GATEWAY}:${(server.address() as net.AddressInfo).port}/`;
    });

    afterAll(async () => {
      server?.closeAllConnections();
      server?.close();
      await network?.close();
      await guest?.remove();
    });

    afterEach(async () => {
      for (const close of closers.splice(0)) await close();
    });

    async function shell(script: string): Promise<string> {
      const { code, stdout, stderr } = await guest.run('sh', '-ec', script);
      if (code !== 0) throw new Error(`ended with ${code}: ${stderr}`);
      return stdout.trim();
    }

    async function flowsGone(): Promise<void> {
      await vi.waitFor(async () => expect((await network.stats()).tcpFlows).toBe(0), {
        timeout: 20_000,
        interval: 100,
      });
    }

    async function listen(onConnection: (socket: net.Socket) => void): Promise<number> {
      const listener = net.createServer({ allowHalfOpen: true }, onConnection).listen(0, '127.0.0.1');
      await once(listener, 'listening');
      closers.push(() => listener.close());
      return (listener.address() as net.AddressInfo).port;
    }

    /** Both directions, whole. */
    async function bothWays(): Promise<void> {
      const down = await shell(`curl -sS --max-time 40 ${url} | sha256sum`);
      expect(down.slice(0, 64)).toBe(digest);
      const up = await shell(
        `f=$(mktemp); trap 'rm $f' EXIT; curl -sS --max-time 40 -o $f ${url}; curl -sS --max-time 40 -H Expect: -T $f ${url}`,
      );
      expect(up).toBe(digest);
    }

    /** Loses a share (undefined: all) of what arrives at the guest, and of what leaves it, by its packet filter. */
    async function lossy(percent: number | undefined): Promise<void> {
      const share = percent === undefined ? '' : `numgen random mod 100 < ${percent}`;
      await shell(`nft -f - <<END
      table netdev loss {
        chain in { type filter hook ingress device eth0 priority 0; meta l4proto tcp ${share} counter drop; }
        chain out { type filter hook egress device eth0 priority 0; meta l4proto tcp ${share} counter drop; }
      }
END`);
      closers.push(() => shell('nft delete table netdev loss'));
    }

    /** Both directions have lost something. */
    async function somethingLost(): Promise<void> {
      expect(await shell("nft list table netdev loss | grep -c 'counter packets [1-9]'")).toBe('2');
    }

    const settings: [string, Record<string, string>][] = [
      ['as it comes', {}],
      ['without SACK', { tcp_sack: '0' }],
      ['without timestamps', { tcp_timestamps: '0' }],
      ['without window scaling', { tcp_window_scaling: '0' }],
      ['with none of the three', { tcp_sack: '0', tcp_timestamps: '0', tcp_window_scaling: '0' }],
      ['with Reno', { tcp_congestion_control: 'reno' }],
      ['with a receive buffer of 8 KiB', { tcp_rmem: '4096 8192 8192' }],
      ['with a send buffer of 8 KiB', { tcp_wmem: '4096 8192 8192' }],
    ];

    describe.each(settings)('%s', (_name, values) => {
      test('8 MiB go whole each way', async () => {
        for (const [name, value] of Object.entries(values)) {
          const path = `/proc/sys/net/ipv4/${name}`;
          const before = await shell(`cat ${path}; echo '${value}' > ${path}`);
          closers.push(() => shell(`echo '${before}' > ${path}`));
        }
        await bothWays();
      });
    });

    test('small packets: 8 MiB go whole each way with an MTU of 600', async () => {
      await shell('ip link set eth0 mtu 600');
      closers.push(() => shell('ip link set eth0 mtu 65520'));
      await bothWays();
    });

    test('plain packets: 8 MiB go whole each way without segmentation offload', async () => {
      await shell('ip link set eth0 mtu 1500 gso_max_segs 1');
      closers.push(() => shell('ip link set eth0 mtu 65520 gso_max_segs 65535'));
      await bothWays();
    });

    test('a wire that loses 3 % of packets each way loses no byte', async () => {
      await shell('ip link set eth0 mtu 1500 gso_max_segs 8');
      closers.push(() => shell('ip link set eth0 mtu 65520 gso_max_segs 65535'));
      await lossy(3);
      await bothWays();
      await somethingLost();
    });

    test('the same without SACK', async () => {
      await shell('echo 0 > /proc/sys/net/ipv4/tcp_sack; ip link set eth0 mtu 1500 gso_max_segs 8');
      closers.push(() =>
        shell('echo 1 > /proc/sys/net/ipv4/tcp_sack; ip link set eth0 mtu 65520 gso_max_segs 65535'),
      );
      await lossy(2);
      await bothWays();
      await somethingLost();
    });

    test('16 transfers at once, up and down, are all whole', async () => {
      const down = Array.from({ length: 8 }, () => shell(`curl -sS --max-time 40 ${url} | sha256sum`));
      const up = Array.from({ length: 8 }, () =>
        shell(
          `f=$(mktemp); trap 'rm $f' EXIT; head -c 1000000 /dev/urandom > $f; sha256sum < $f | cut -c1-64; curl -sS --max-time 40 -H Expect: -T $f ${url}`,
        ),
      );
      for (const sum of await Promise.all(down)) expect(sum.slice(0, 64)).toBe(digest);
      for (const lines of await Promise.all(up)) {
        const [sent, received] = lines.split('\n');
        expect(received).toBe(sent);
      }
    });

    describe('towards a server in the guest', () => {
      let published: PublishedPort;
      let inGuest: Running;

      beforeAll(async () => {
        // GET gives as many zeros as the path says, PUT answers with the digest of what it got.
        inGuest = guest.start(
          process.execPath,
          '-e',
          `require('node:http').createServer((request, response) => {
            if (request.method === 'GET') return response.end(Buffer.alloc(Number(request.url.slice(1)), 'drydock '));
            const hash = require('node:crypto').createHash('sha256');
            request.on('data', (chunk) => hash.update(chunk));
            request.on('end', () => response.end(hash.digest('hex')));
          }).listen(8080, () => console.log('listening'))`,
        );
        await inGuest.line(/listening/);
        published = await network.publish({
          protocol: 'tcp',
          hostAddress: '127.0.0.1',
          hostPort: 0,
          guestAddress: '10.215.0.2',
          guestPort: 8080,
        });
      });

      afterAll(async () => {
        await published?.close();
        inGuest?.kill();
        await inGuest?.ended;
      });

      async function bothWaysIn(): Promise<void> {
        const base = `http://127.0.0.1:${published.hostPort}`;
        const got = Buffer.from(await (await fetch(`${base}/${BYTES}`)).arrayBuffer());
        expect(got.equals(Buffer.alloc(BYTES, 'drydock '))).toBe(true);
        const answer = await fetch(base, { method: 'PUT', body });
        expect(await answer.text()).toBe(digest);
      }

      test('8 MiB go whole each way', bothWaysIn);

      test('and over a wire that loses 2 % each way', async () => {
        await shell('ip link set eth0 mtu 1500 gso_max_segs 8');
        closers.push(() => shell('ip link set eth0 mtu 65520 gso_max_segs 65535'));
        await lossy(2);
        await bothWaysIn();
        await somethingLost();
      });

      test('a SYN that is lost is sent again', async () => {
        await lossy(undefined);
        const socket = net.connect(published.hostPort, '127.0.0.1');
        closers.push(() => socket.destroy());
        // The first SYN is lost; the next one goes out a second after it.
        await vi.waitFor(
          async () => {
            const dropped = await shell("nft list chain netdev loss in | grep -c 'counter packets [1-9]'");
            expect(dropped).toBe('1');
          },
          { timeout: 20_000, interval: 50 },
        );
        await shell('nft delete table netdev loss');
        closers.shift();
        socket.write('GET /10 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
        let text = '';
        socket.on('data', (chunk) => (text += chunk));
        await once(socket, 'end');
        expect(text).toMatch(/^HTTP\/1.1 200 OK[\s\S]*drydock dr$/);
      });
    });

    test('the kernel agrees to timestamps, SACK and window scaling', async () => {
      const connected = deferred<net.Socket>();
      const port = await listen((socket) => {
        socket.on('error', () => {});
        connected.resolve(socket);
      });
      const client = guest.start('perl', '-MIO::Socket::INET', '-e', connectAndWait(port));
      const socket = await connected.promise;
      await client.line(/connected/);
      const info = await shell(`ss -tino dst ${GATEWAY}`);
      expect(info).toMatch(/\bts sack\b.*\bwscale:7,\d+\b/);
      expect(info).toMatch(/\badvmss:65468\b/);
      client.kill();
      await client.ended;
      socket.destroy();
      await flowsGone();
    });

    function connectAndWait(port: number): string {
      return `$| = 1; my $s = IO::Socket::INET->new(PeerAddr => '${GATEWAY}', PeerPort => ${port}) or die $!; print "connected\\n"; sleep 60`;
    }

    test('RFC 9293 section 3.8.5: urgent data arrives in line', async () => {
      const text = deferred<string>();
      const port = await listen((socket) => {
        let got = '';
        socket.on('data', (chunk) => (got += chunk));
        socket.on('end', () => {
          socket.end();
          text.resolve(got);
        });
      });
      await guest.run(
        'perl',
        '-MIO::Socket::INET',
        '-MSocket=MSG_OOB',
        '-e',
        `my $s = IO::Socket::INET->new(PeerAddr => '${GATEWAY}', PeerPort => ${port}) or die $!; send($s, 'ab', 0); send($s, 'C', MSG_OOB); send($s, 'de', 0); shutdown($s, 1); sysread($s, my $b, 1)`,
      );
      expect(await text.promise).toBe('abCde');
    });

    test('RFC 9293 section 3.6.1: the same port again, while the one before is in TIME-WAIT on our side', async () => {
      const port = await listen((socket) => socket.end('bye'));
      const client = `
      my $s = IO::Socket::INET->new(PeerAddr => '${GATEWAY}', PeerPort => ${port}, LocalPort => 45000, ReuseAddr => 1) or die $!;
      local $/; print <$s>`;
      for (let i = 0; i < 3; i++) {
        const { stdout, stderr } = await guest.run('perl', '-MIO::Socket::INET', '-e', client);
        expect([stdout, stderr]).toEqual(['bye', '']);
      }
    });

    test('a guest that stops reading for a while gets everything all the same', async () => {
      const sum = await shell(`curl -sS --max-time 30 ${url} | { sleep 2; sha256sum; }`);
      expect(sum.slice(0, 64)).toBe(digest);
    });

    test('a wire that is cut for a second goes on where it was', async () => {
      const sum = shell(`curl -sS --max-time 40 --limit-rate 4M ${url} | sha256sum`);
      await vi.waitFor(async () => expect((await network.stats()).tcpFlows).toBe(1), {
        timeout: 10_000,
        interval: 20,
      });
      await lossy(undefined);
      await shell('sleep 1; nft delete table netdev loss');
      closers.length = 0;
      expect((await sum).slice(0, 64)).toBe(digest);
    });

    test('400 connections at once each get their answer, and leave nothing', async () => {
      const port = await listen((socket) => socket.pipe(socket));
      const report = await guest.node(`
      const net = require('node:net');
      let good = 0, left = 400;
      for (let i = 0; i < 400; i++) {
        const socket = net.connect(${port}, '${GATEWAY}', () => socket.end('number ' + i));
        let text = '';
        socket.on('data', (chunk) => (text += chunk));
        socket.on('error', (error) => console.error(String(error)));
        socket.on('close', () => {
          if (text === 'number ' + i) good++;
          if (--left === 0) console.log(good);
        });
      }`);
      expect(report).toBe('400');
      await flowsGone();
    });

    test('a guest that is killed in mid-transfer takes its connection with it', async () => {
      const closed = deferred<void>();
      const port = await listen((socket) => {
        socket.on('error', () => {});
        socket.on('close', () => closed.resolve());
        const more = (): void => {
          while (socket.writable && socket.write(body));
        };
        socket.on('drain', more);
        more();
      });
      const client = guest.start('perl', '-MIO::Socket::INET', '-e', connectAndWait(port));
      await client.line(/connected/);
      client.kill();
      await client.ended;
      await closed.promise;
      await flowsGone();
    });
  },
);
