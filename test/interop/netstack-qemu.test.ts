/** A real virtual machine on a network: DHCP, DNS, HTTP, NTP and ping from Debian's kernel and busybox under QEMU. */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import http from 'node:http';
import type net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createNetstack, type Network } from '#netstack';
import { cloudKernel, makeInitrd, runGuest } from '../support/qemu-guest.ts';
import { lacking } from '../support/requirements.ts';

const GATEWAY = '10.222.0.1';
const BODY_BYTES = 3_000_000;
const BOOT_MS_MAX = 50_000;

const needs = [
  'qemu-system-x86_64',
  '/bin/busybox',
  'cpio',
  `/boot/vmlinuz-${cloudKernel() ?? 'VERSION-cloud-amd64'}`,
];

describe.skipIf(lacking(...needs))('a virtual machine', () => {
  let network: Network;
  let folder: string;
  let server: http.Server;
  let url: string;
  const body = randomBytes(BODY_BYTES);
  const version = cloudKernel()!;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'dd-qemu-'));
    network = await createNetstack({
      name: 'qemu',
      subnet: '10.222.0.0/24',
      mtuBytes: 1500,
      dnsUpstreams: ['127.0.0.1#9'],
    });
    server = http.createServer((_request, response) => response.end(body));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    url = `http://host.docker.internal:${(server.address() as net.AddressInfo).port}/`;
  });

  afterAll(async () => {
    server?.close();
    await network?.close();
    rmSync(folder, { recursive: true });
  });

  test.each([
    [
      '-netdev stream',
      'qemu',
      (path: string) => `unix://${path}`,
      (path: string) => `stream,id=n0,server=off,addr.type=unix,addr.path=${path}`,
    ],
    [
      '-netdev socket',
      'qemu',
      () => 'tcp://127.0.0.1:0',
      (_path: string, url: string) => `socket,id=n0,connect=${new URL(url).host}`,
    ],
    [
      '-netdev dgram',
      'vfkit',
      (path: string) => `unixgram://${path}`,
      (path: string) =>
        `dgram,id=n0,local.type=unix,local.path=${path}.vm,remote.type=unix,remote.path=${path}`,
    ],
  ] as const)(
    'over %s gets an address, names, the time and 3 MB, and pings',
    async (_name, protocol, place, netdev) => {
      const path = join(folder, `${protocol}.sock`);
      const listening = await network.listenLink(protocol, place(path));
      try {
        const initrd = makeInitrd(
          folder,
          version,
          `echo "body $(wget -q -O - ${url} | sha256sum)"
         echo "name $(nslookup host.docker.internal ${GATEWAY} | grep -c ${GATEWAY})"
         { printf '\\043'; head -c 47 /dev/zero; } > /request
         echo "time $(timeout 5 bash -c 'exec 3<>/dev/udp/${GATEWAY}/123; dd if=/request bs=48 count=1 >&3; dd bs=48 count=1 <&3' 2>/dev/null | hexdump -v -e '1/1 "%02x"')"
         ping -c 2 -W 2 ${GATEWAY} | grep received`,
        );
        const mac = '02:50:00:00:00:07';
        const output = await runGuest({
          version,
          initrd,
          memoryMib: 160,
          network: { netdev: netdev(path, listening.url), mac },
          timeoutMs: BOOT_MS_MAX,
        });
        const leases = await network.leases();
        const address = leases.find((lease) => lease.mac === mac)?.address;
        expect(address).toMatch(/^10\.222\.0\.\d+$/);
        expect(output).toContain(
          `dhcp ip=${address} router=${GATEWAY} dns=${GATEWAY} ntp=${GATEWAY} mtu=1500`,
        );
        expect(output).toContain(`body ${createHash('sha256').update(body).digest('hex')}`);
        expect(output).toMatch(/^name [1-9]/m);
        const reply = Buffer.from(/^time ([0-9a-f]{96})/m.exec(output)![1]!, 'hex');
        // Mode 4, server; the transmit timestamp counts from 1900 (RFC 5905).
        expect(reply[0]! & 7).toBe(4);
        expect(Math.abs(reply.readUInt32BE(40) - 2_208_988_800 - Date.now() / 1000)).toBeLessThan(60);
        expect(output).toMatch(/2 packets received/);
      } finally {
        await listening.close();
      }
    },
  );
});
