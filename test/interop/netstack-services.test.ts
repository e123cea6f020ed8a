/**
 * The services of a network with other people's clients: dig, kdig, udhcpc, dhclient, ntpdig, chronyd, each in a namespace
 * behind a TAP, and an upstream resolver that this process plays with dns-packet.
 */
import dgram from 'node:dgram';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as dnsPacket from 'dns-packet';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Attachment, createNetstack, type Network } from '#netstack';
import { Netns } from '../support/netns.ts';
import { lacking } from '../support/requirements.ts';

const SUBNET = '10.214.0.0/24';
const GATEWAY = '10.214.0.1';
const GUEST = '10.214.0.2';

/** Answers that the upstream resolver gives, by name and type. */
const RECORDS: dnsPacket.Answer[] = [
  { type: 'A', name: 'www.example.test', data: '192.0.2.80', ttl: 300 },
  { type: 'AAAA', name: 'www.example.test', data: '2001:db8::80', ttl: 300 },
  { type: 'MX', name: 'example.test', data: { preference: 10, exchange: 'mail.example.test' }, ttl: 300 },
  {
    type: 'SRV',
    name: '_ldap._tcp.example.test',
    data: { port: 389, target: 'dc.example.test', priority: 1, weight: 2 },
    ttl: 300,
  },
  { type: 'CAA', name: 'example.test', data: { flags: 0, tag: 'issue', value: 'ca.test' }, ttl: 300 },
  { type: 'NS', name: 'example.test', data: 'ns.example.test', ttl: 300 },
  ...Array.from(
    { length: 30 },
    (_, i): dnsPacket.Answer => ({
      type: 'TXT',
      name: 'big.example.test',
      data: [`${i} ${'x'.repeat(100)}`],
      ttl: 300,
    }),
  ),
];

/** A resolver on the loopback, over UDP and TCP; it truncates over UDP what does not fit. */
class Upstream {
  readonly asked: string[] = [];
  readonly #udp = dgram.createSocket('udp4');
  readonly #tcp = net.createServer((socket) => {
    let buffered = Buffer.alloc(0);
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      buffered = Buffer.concat([buffered, chunk]);
      while (buffered.length >= 2 && buffered.length >= 2 + buffered.readUInt16BE(0)) {
        const length = buffered.readUInt16BE(0);
        const reply = this.#answer(buffered.subarray(2, 2 + length), 65535, 'tcp');
        buffered = buffered.subarray(2 + length);
        const prefix = Buffer.alloc(2);
        prefix.writeUInt16BE(reply.length);
        socket.write(Buffer.concat([prefix, reply]));
      }
    });
  });
  port = 0;

  async start(): Promise<void> {
    this.#tcp.listen(0, '127.0.0.1');
    await once(this.#tcp, 'listening');
    this.port = (this.#tcp.address() as net.AddressInfo).port;
    this.#udp.bind(this.port, '127.0.0.1');
    await once(this.#udp, 'listening');
    this.#udp.on('message', (message, from) => {
      const query = dnsPacket.decode(message);
      const opt = query.additionals?.find((record) => record.type === 'OPT') as
        | { udpPayloadSize?: number }
        | undefined;
      this.#udp.send(this.#answer(message, opt?.udpPayloadSize ?? 512, 'udp'), from.port, from.address);
    });
  }

  #answer(message: Buffer, limit: number, transport: string): Buffer {
    const query = dnsPacket.decode(message);
    const [question] = query.questions!;
    this.asked.push(`${transport} ${question!.name} ${question!.type}`);
    const ofName = RECORDS.filter((record) => record.name === question!.name.toLowerCase());
    const answers = ofName.filter((record) => record.type === question!.type);
    const packet = (flags: number, records: dnsPacket.Answer[]): Buffer =>
      dnsPacket.encode({
        type: 'response',
        id: query.id!,
        flags: flags | dnsPacket.RECURSION_AVAILABLE | dnsPacket.RECURSION_DESIRED,
        questions: query.questions!,
        answers: records,
      });
    const whole = packet(ofName.length > 0 ? 0 : 3, answers);
    return whole.length > limit ? packet(dnsPacket.TRUNCATED_RESPONSE, []) : whole;
  }

  close(): void {
    this.#udp.close();
    this.#tcp.close();
  }
}

describe.skipIf(
  lacking('root', '/dev/net/tun', 'ip', 'dig', 'kdig', 'udhcpc', 'dhclient', 'ntpdig', 'chronyd'),
)('services with real clients', () => {
  const upstream = new Upstream();
  let network: Network;
  let guest: Netns;
  let attachment: Attachment;
  let folder: string;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'netstack-services-'));
    await upstream.start();
    network = await createNetstack({
      name: 'services',
      subnet: SUBNET,
      subnet6: 'fd00:214::/64',
      mtuBytes: 1500,
      domain: 'lan.test',
      searchDomains: ['lan.test', 'example.test'],
      dnsUpstreams: [`127.0.0.1#${upstream.port}`],
    });
    guest = new Netns();
    attachment = await network.attach({
      namespacePath: guest.path,
      interfaceName: 'eth0',
      names: ['web', 'www'],
    });
  });
  afterAll(async () => {
    await network?.close();
    await guest?.remove();
    upstream.close();
    rmSync(folder, { recursive: true, force: true });
  });

  async function dig(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await guest.run('dig', `@${GATEWAY}`, '+tries=1', '+time=3', ...args);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    return stdout.trim();
  }

  describe('DNS', () => {
    test('dig finds a guest by its names, with and without the domain, over UDP and TCP', async () => {
      expect(await dig('+short', 'web')).toBe(GUEST);
      expect(await dig('+short', 'WWW.lan.test')).toBe(GUEST);
      expect(await dig('+short', '+tcp', 'web')).toBe(GUEST);
      expect(await dig('+short', '-x', GUEST)).toBe('web.lan.test.');
      expect(await dig('+short', 'host.docker.internal')).toBe(GATEWAY);
    });

    test('a known name without a record of a type is NOERROR, an unknown one NXDOMAIN, and neither leaves', async () => {
      upstream.asked.length = 0;
      expect(await dig('+short', 'web', 'AAAA')).toBe('fd00:214::2');
      expect(await dig('web', 'MX')).toMatch(/status: NOERROR[\s\S]*ANSWER: 0/);
      expect(await dig('nosuch')).toMatch(/status: NXDOMAIN/);
      expect(await dig('nosuch.lan.test')).toMatch(/status: NXDOMAIN/);
      expect(upstream.asked).toEqual([]);
    });

    test.each([
      ['www.example.test', 'A', '192.0.2.80'],
      ['www.example.test', 'AAAA', '2001:db8::80'],
      ['example.test', 'MX', '10 mail.example.test.'],
      ['_ldap._tcp.example.test', 'SRV', '1 2 389 dc.example.test.'],
      ['example.test', 'CAA', '0 issue "ca.test"'],
      ['example.test', 'NS', 'ns.example.test.'],
    ])("upstream's %s %s comes through", async (name, type, expected) => {
      expect(await dig('+short', name, type)).toBe(expected);
    });

    test('an answer is kept: upstream is asked once, and the TTL counts down', async () => {
      upstream.asked.length = 0;
      await dig('WWW.example.test', 'A');
      const ttl = Number((await dig('+noall', '+answer', 'www.EXAMPLE.test', 'A')).split(/\s+/)[1]);
      expect(ttl).toBeLessThanOrEqual(300);
      expect(ttl).toBeGreaterThan(200);
      expect(upstream.asked).toEqual([]);
    });

    test('an answer that does not fit over UDP is truncated for those who cannot take it, and whole over TCP', async () => {
      upstream.asked.length = 0;
      const cut = await dig('+noedns', '+ignore', 'big.example.test', 'TXT');
      expect(cut).toMatch(/flags: qr tc/);
      expect(upstream.asked).toEqual(['udp big.example.test TXT', 'tcp big.example.test TXT']);
      const whole = await dig('+noedns', '+short', 'big.example.test', 'TXT');
      expect(whole.split('\n')).toHaveLength(30);
      const large = await dig('+bufsize=4096', '+notcp', '+ignore', '+short', 'big.example.test', 'TXT');
      expect(large.split('\n')).toHaveLength(30);
    });

    test('kdig has several answers over one TCP connection', async () => {
      const { stdout, code } = await guest.run(
        'kdig',
        `@${GATEWAY}`,
        '+tcp',
        '+keepopen',
        '+short',
        'web',
        'www.example.test',
        'nosuch',
        'host.containers.internal',
      );
      expect(code).toBe(0);
      expect(stdout.trim().split('\n').filter(Boolean)).toEqual([GUEST, '192.0.2.80', GATEWAY]);
    });

    test('names added and removed while it runs are answered so', async () => {
      await network.addZone({
        name: 'late.test',
        records: [
          { name: 'api', address: Uint8Array.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 9, 9, 9]) },
        ],
      });
      expect(await dig('+short', 'api.late.test')).toBe('10.9.9.9');
      await attachment.setNames(['other']);
      expect(await dig('web')).toMatch(/NXDOMAIN/);
      expect(await dig('+short', 'other')).toBe(GUEST);
      await attachment.setNames(['web', 'www']);
    });

    test('five hundred names at once are all answered', async () => {
      const counts = await guest.node(`
        const socket = require('node:dgram').createSocket('udp4');
        const rcodes = new Map();
        let left = 500;
        socket.on('message', (reply) => {
          rcodes.set(reply[3] & 15, (rcodes.get(reply[3] & 15) ?? 0) + 1);
          if (--left === 0) { console.log(JSON.stringify([...rcodes])); socket.close(); }
        });
        for (let i = 0; i < 500; i++) {
          const name = 'n' + String(i).padStart(3, '0');
          const tail = '\\x07example\\x04test\\0\\0\\x01\\0\\x01';
          const query = Buffer.from('\\0\\0\\x01\\0\\0\\x01\\0\\0\\0\\0\\0\\0' + String.fromCharCode(4) + name + tail, 'latin1');
          query.writeUInt16BE(i, 0);
          socket.send(query, 53, '10.214.0.1');
        }
      `);
      expect(JSON.parse(counts)).toEqual([[3, 500]]);
    });
  });

  /** A script that a DHCP client calls with what it has learnt; it keeps that and touches nothing. */
  function recorder(): { script: string; heard: () => Record<string, string> } {
    const script = join(folder, 'recorder');
    const file = join(folder, 'heard');
    writeFileSync(file, '');
    writeFileSync(script, `#!/bin/sh\n{ echo "event=$1$reason"; env; } >> ${file}\n`);
    chmodSync(script, 0o755);
    return {
      script,
      heard: () =>
        Object.fromEntries(
          readFileSync(file, 'utf8')
            .split('\n')
            .map((line) => [line.split('=', 1)[0]!, line.slice(line.indexOf('=') + 1)]),
        ),
    };
  }

  describe('DHCP', () => {
    test('udhcpc gets the address of the attachment and the parameters that it asks for', async () => {
      const { script, heard } = recorder();
      const { code, stderr } = await guest.run(
        'udhcpc',
        '-i',
        'eth0',
        '-n',
        '-q',
        '-f',
        '-t',
        '3',
        '-T',
        '1',
        '-s',
        script,
        '-O',
        'mtu',
        '-O',
        'search',
        '-O',
        'ntpsrv',
        '-x',
        'hostname:pc',
      );
      expect({ code, stderr }).toMatchObject({ code: 0 });
      expect(heard()).toMatchObject({
        event: 'bound',
        ip: GUEST,
        subnet: '255.255.255.0',
        router: GATEWAY,
        dns: GATEWAY,
        serverid: GATEWAY,
        broadcast: '10.214.0.255',
        ntpsrv: GATEWAY,
        mtu: '1500',
        domain: 'lan.test',
        search: 'lan.test example.test',
        lease: '3600',
      });
    });

    test('dhclient binds, and releases', async () => {
      const { script, heard } = recorder();
      const files = ['-lf', join(folder, 'leases'), '-pf', join(folder, 'pid'), '-sf', script];
      const bound = await guest.run('dhclient', '-1', '-v', ...files, 'eth0');
      expect(bound.stderr).toMatch(/DHCPACK of 10\.214\.0\.2 from 10\.214\.0\.1/);
      expect(heard()).toMatchObject({
        new_ip_address: GUEST,
        new_routers: GATEWAY,
        new_domain_name_servers: GATEWAY,
        new_interface_mtu: '1500',
      });
      const released = await guest.run('dhclient', '-r', '-v', ...files, 'eth0');
      expect(released.stderr).toMatch(/DHCPRELEASE/);
    });
  });

  describe('DHCPv6', () => {
    test('dhclient -6 is bound to the address that goes with the IPv4 one, and is told the parameters', async () => {
      const { script, heard } = recorder();
      const files = ['-lf', join(folder, 'leases6'), '-pf', join(folder, 'pid6'), '-sf', script];
      const { code, stderr } = await guest.run('dhclient', '-6', '-1', '-v', ...files, 'eth0');
      expect({ code, stderr }).toMatchObject({
        code: 0,
        stderr: expect.stringMatching(/RCV: Reply message on eth0/),
      });
      expect(heard()).toMatchObject({
        new_ip6_address: 'fd00:214::2',
        new_dhcp6_name_servers: 'fd00:214::1',
        new_dhcp6_domain_search: 'lan.test. example.test.',
      });
      expect((await guest.run('dhclient', '-6', '-r', '-v', ...files, 'eth0')).stderr).toMatch(
        /XMT: Release/,
      );
    });

    test('dhclient -6 -S is told the parameters alone', async () => {
      const { script, heard } = recorder();
      const files = ['-lf', join(folder, 'leasesS'), '-pf', join(folder, 'pidS'), '-sf', script];
      const { code } = await guest.run('dhclient', '-6', '-S', '-1', '-v', ...files, 'eth0');
      expect(code).toBe(0);
      expect(heard()).toMatchObject({ new_dhcp6_name_servers: 'fd00:214::1' });
      await guest.run('dhclient', '-6', '-S', '-x', ...files, 'eth0');
    });
  });

  describe('NTP', () => {
    test("ntpdig takes our time, which is the host's", async () => {
      const { code, stdout } = await guest.run('ntpdig', '-j', GATEWAY);
      expect(code).toBe(0);
      const reply = JSON.parse(stdout) as { offset: number; stratum: number; ip: string };
      expect(reply.ip).toBe(GATEWAY);
      expect(Math.abs(reply.offset)).toBeLessThan(1);
      expect(reply.stratum).toBeGreaterThan(1);
      expect(reply.stratum).toBeLessThan(16);
    });

    test('chronyd measures against us and accepts us as a source', async () => {
      const { code, stdout, stderr } = await guest.run(
        'chronyd',
        '-Q',
        '-t',
        '15',
        '-u',
        'root',
        'cmdport 0',
        `pidfile ${join(folder, 'chronyd.pid')}`,
        `server ${GATEWAY} iburst maxsamples 4`,
      );
      expect({ code, output: stdout + stderr }).toMatchObject({ code: 0 });
      expect(stdout + stderr).toMatch(/System clock wrong by -?0\.\d+ seconds \(ignored\)/);
    });
  });

  test('a policy by name lets out what its names were answered with, and nothing else', async () => {
    await network.setPolicy({ default: 'deny', rules: [{ action: 'allow', name: 'www.example.test' }] });
    try {
      expect(await dig('secret.example.org')).toMatch(/status: REFUSED/);
      expect(await dig('+short', '+tcp', 'www.example.test')).toBe('192.0.2.80');
      const { code } = await guest.run('ping', '-c1', '-W1', '203.0.113.5');
      expect(code).not.toBe(0);
      expect(await network.denied()).toMatchObject([
        { target: 'secret.example.org', protocol: 'dns' },
        { guest: GUEST, target: '203.0.113.5:0', protocol: 'icmp' },
      ]);
    } finally {
      await network.setPolicy({ default: 'allow', rules: [] });
    }
  });
});
