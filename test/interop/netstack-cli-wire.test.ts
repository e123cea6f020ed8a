/**
 * What `drydock net` does on guests' wires when its flags say so: faults, filtered and rotated captures, multicast to the
 * host's network, and a policy. The command and its guest have namespaces of their own.
 */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { compiledEntry } from '#common/entry';
import { Netns, type Running } from '../support/netns.ts';
import { lacking } from '../support/requirements.ts';

const GATEWAY = '192.168.127.1';
const GATEWAY_MAC = '5a:94:ef:e4:0c:dd';

describe.skipIf(lacking('root', '/dev/net/tun', 'ip', 'ping', 'dig', 'curl', 'tcpdump'))(
  'drydock net',
  () => {
    let edge: Netns;
    let guest: Netns;
    let folder: string;

    beforeEach(() => {
      [edge, guest] = [new Netns(), new Netns()];
      folder = mkdtempSync(join(tmpdir(), 'netstack-wire-'));
      execFileSync('ip', ['-n', edge.name, 'link', 'set', 'lo', 'up']);
    });
    afterEach(async () => {
      // The command is one of the edge's programs.
      await edge.remove();
      await guest.remove();
      rmSync(folder, { recursive: true });
    });

    const run = (...flags: string[]): Running =>
      edge.start(process.execPath, compiledEntry('daemon/bin'), 'net', ...flags);

    /** Starts the command with the guest attached, by its name. */
    async function start(...flags: string[]): Promise<Running> {
      const pidFile = join(folder, 'pid');
      const command = run('--netns', guest.name, '--pid-file', pidFile, ...flags);
      let failure: string | undefined;
      void command.ended.then(({ stderr }) => {
        failure = stderr;
      });
      await vi.waitFor(() => {
        if (failure !== undefined) throw new Error(failure);
        expect(existsSync(pidFile)).toBe(true);
      }, 20_000);
      return command;
    }

    /** Asks the control API, which answers JSON or nothing. */
    async function call(socketPath: string, method: string, path: string, body?: object): Promise<unknown> {
      const request = http.request({ socketPath, method, path, agent: false });
      request.end(body && JSON.stringify(body));
      const [response] = (await once(request, 'response')) as [http.IncomingMessage];
      let text = '';
      for await (const chunk of response) text += chunk;
      return text === '' ? undefined : JSON.parse(text);
    }

    /** Ends the command and gives its log. */
    async function end(command: Running): Promise<string> {
      process.kill(Number(readFileSync(join(folder, 'pid'), 'utf8')), 'SIGTERM');
      const { code, stderr } = await command.ended;
      expect(code).toBe(0);
      return stderr;
    }

    test('loses and delays frames on the way there and back', async () => {
      await start('--drop', '30%', '-delay=30ms', '--fault-seed', '1');
      // Else the first loss could be that of the question who has the gateway's address.
      execFileSync('ip', [
        ...['-n', guest.name, 'neigh', 'replace', GATEWAY],
        ...['lladdr', GATEWAY_MAC, 'dev', 'tap0'],
      ]);
      const { stdout } = await guest.run('ping', '-c', '100', '-i', '0.01', '-W', '1', GATEWAY);
      const received = Number(/(\d+) received/.exec(stdout)?.[1]);
      // 49 are to be expected: five deviations either way.
      expect(received).toBeGreaterThan(24);
      expect(received).toBeLessThan(74);
      expect(Number(/= ([\d.]+)\//.exec(stdout)?.[1])).toBeGreaterThanOrEqual(60);
    });

    test('captures what the filter names, in files of a size, and live; a full disk is told when it is met', async () => {
      const path = join(folder, 'icmp.pcap');
      const control = join(folder, 'control.sock');
      const command = await start(
        ...['--pcap', path, '--pcap-filter', 'icmp', '--pcap-size', '64K', '--pcap-files', '2'],
        ...['-listen', `unix://${control}`, '-ssh-port', '-1'],
      );
      expect((await guest.run('dig', '+short', `@${GATEWAY}`, 'gateway.docker.internal')).stdout.trim()).toBe(
        GATEWAY,
      );
      // Each is 1442 bytes on the wire, both ways: more than four files' worth.
      const { stdout } = await guest.run('ping', '-c', '120', '-i', '0.002', '-s', '1400', GATEWAY);
      expect(stdout).toMatch(/120 received/);
      // Beside it: what passes meanwhile, to whoever asks, and a disk that is full, of which the log tells at once.
      const live = http.get({ socketPath: control, path: '/capture/live?filter=icmp', agent: false });
      const [stream] = (await once(live, 'response')) as [http.IncomingMessage];
      const full = { path: '/dev/full', filter: 'icmp' };
      expect(await call(control, 'POST', '/capture', full)).toMatchObject({ ...full, frames: 0 });
      await guest.run('ping', '-c', '1', GATEWAY);
      const chunks: Buffer[] = [];
      for await (const chunk of stream as AsyncIterable<Buffer>) {
        chunks.push(chunk);
        if (Buffer.concat(chunks).length >= 24 + 2 * (16 + 98)) break;
      }
      const lines = execFileSync('tcpdump', ['-nr', '-'], { input: Buffer.concat(chunks), encoding: 'utf8' });
      expect(lines.match(/ICMP echo (request|reply)/g)).toEqual(['ICMP echo request', 'ICMP echo reply']);
      await vi.waitFor(async () =>
        expect(await call(control, 'GET', '/capture')).toEqual([
          { path, filter: 'icmp', frames: 242, dropped: 0 },
          { ...full, frames: 0, dropped: 0, failed: 'ENOSPC' },
        ]),
      );
      const log = await end(command);
      expect(log).toMatch(/"path":"\/dev\/full","failed":"ENOSPC".*"msg":"a capture has failed/);
      expect(log).toMatch(/"frames":242,"dropped":0,"msg":"the capture is written"/);
      const files = [path, `${path}.1`, `${path}.2`];
      expect([...files, `${path}.3`].map((file) => existsSync(file))).toEqual([true, true, true, false]);
      const read = (file: string, ...filter: string[]): string[] =>
        execFileSync('tcpdump', ['-nr', file, ...filter], {
          encoding: 'utf8',
          stdio: ['ignore', 'pipe', 'ignore'],
        })
          .split('\n')
          .filter((line) => line !== '');
      for (const file of files) {
        expect(read(file, 'not', 'icmp')).toEqual([]);
        expect(read(file, 'icmp').length).toBeGreaterThan(0);
      }
      // The last packet is in the file that was written last.
      expect(read(path).at(-1)).toMatch(/ICMP echo reply, id \d+, seq 1,/);
    });

    test('denies what the file of --policy denies, and says so in its log and by its API', async () => {
      const policy = join(folder, 'policy.yaml');
      writeFileSync(policy, 'default: deny\nrules: [{ action: allow, name: www.example.test }]\n');
      const control = join(folder, 'control.sock');
      const command = await start('--policy', policy, '-listen', `unix://${control}`, '-ssh-port', '-1');
      const answer = await guest.run('dig', `@${GATEWAY}`, 'secret.example.org');
      expect(answer.stdout).toMatch(/status: REFUSED/);
      const outcome = await guest.node(
        `require('node:net').connect(443, '203.0.113.5')
        .on('connect', () => console.log('connected')).on('error', ({ code }) => console.log(code))`,
      );
      expect(outcome).toMatch(/^E(ACCES|CONNREFUSED|HOSTUNREACH)$/);
      const denied = await call(control, 'GET', '/policy/denied');
      const who = { guest: expect.stringMatching(/^192\.168\.127\.\d+$/), rule: -1 };
      expect(denied).toMatchObject([
        { ...who, target: 'secret.example.org', protocol: 'dns' },
        { ...who, target: '203.0.113.5:443', protocol: 'tcp' },
      ]);
      const log = await end(command);
      expect(log).toMatch(/"target":"203\.0\.113\.5:443".*"msg":"the policy denied a flow"/);
      expect(log).toMatch(/"target":"secret\.example\.org".*"msg":"the policy denied a flow"/);
    });

    test("leads and restricts as VPNKit's files and flags say, and as they are changed while it runs", async () => {
      for (const address of ['10.8.8.8/32', '10.9.9.9/32'])
        execFileSync('ip', ['-n', edge.name, 'addr', 'add', address, 'dev', 'lo']);
      const server = edge.start(
        process.execPath,
        '-e',
        `const http = require('node:http'), dgram = require('node:dgram');
      const answer = (q, s) => s.end(q.headers.host + ' at ' + q.socket.localAddress + ':' + q.socket.localPort);
      let left = 4; const up = () => --left || console.log('up');
      for (const [port, address] of [[80, '10.8.8.8'], [80, '10.9.9.9'], [9000, '10.9.9.9']])
        http.createServer(answer).listen(port, address, up);
      const udp = dgram.createSocket('udp4').bind(9001, '10.9.9.9', up);
      udp.on('message', (m, { port, address }) => udp.send(m + ' heard', port, address));`,
      );
      await server.line(/up/);
      const forwards = join(folder, 'forwards.json');
      writeFileSync(
        forwards,
        '[{"protocol":"tcp","external_port":8000,"internal_ip":"10.9.9.9","internal_port":9000}]',
      );
      const proxies = join(folder, 'http.json');
      writeFileSync(proxies, '{"allow_enabled":true,"allow":["10.9.9.9"]}');
      const control = join(folder, 'control.sock');
      await start(
        ...['--gateway-forwards', forwards, '--udpv4-forwards', '8001:10.9.9.9:9001', '--http', proxies],
        ...['--allowed-bind-addresses', '127.0.0.1', '--http-api-path', control, '-ssh-port', '-1'],
      );
      const curl = async (url: string): Promise<string> => {
        const { code, stdout } = await guest.run('curl', '-sS', '-m', '5', url);
        return code === 0 ? stdout : `failed with ${code}`;
      };
      // The gateway's ports lead elsewhere; at other ports of the same server nothing is restricted.
      expect(await curl(`http://${GATEWAY}:8000/`)).toBe(`${GATEWAY}:8000 at 10.9.9.9:9000`);
      const asked = await guest.node(
        `const s = require('node:dgram').createSocket('udp4');
      s.on('message', (m) => { console.log(String(m)); s.close(); }).connect(8001, '${GATEWAY}', () => s.send('udp'));`,
      );
      expect(asked).toBe('udp heard');
      // What is on the list is reached at the ports it is about, and nothing else there (curl's 7: refused).
      expect(await curl('http://10.9.9.9/')).toBe('10.9.9.9 at 10.9.9.9:80');
      expect(await curl('http://10.8.8.8/')).toBe('failed with 7');
      expect(await call(control, 'GET', '/http_proxy.json')).toMatchObject({
        allow_enabled: true,
        allow: ['10.9.9.9'],
      });
      await call(control, 'POST', '/http_proxy.json', { allow_enabled: true, allow: ['10.8.0.0/16'] });
      expect(await curl('http://10.8.8.8/')).toBe('10.8.8.8 at 10.8.8.8:80');
      expect(await curl('http://10.9.9.9/')).toBe('failed with 7');
      const expose = (out_ip: string): Promise<unknown> =>
        call(control, 'PUT', '/forwards/expose/port', {
          ...{ proto: 'tcp', out_ip, out_port: 8080 },
          ...{ in_ip: '192.168.127.2', in_port: 80 },
        });
      expect(await expose('10.9.9.9')).toMatchObject({
        message: expect.stringMatching(/only at 127\.0\.0\.1/),
      });
      await expose('127.0.0.1');
      expect(await call(control, 'GET', '/forwards/list')).toMatchObject([{ out_ip: '127.0.0.1' }]);
    });

    test('relays the multicast that it is asked to, and no other', async () => {
      for (const args of [
        ['tuntap', 'add', 'lan', 'mode', 'tap'],
        ['addr', 'add', '10.9.0.1/24', 'dev', 'lan'],
        ['link', 'set', 'lan', 'up'],
        ['route', 'add', '224.0.0.0/4', 'dev', 'lan'],
      ])
        execFileSync('ip', ['-n', edge.name, ...args]);
      await start('--multicast', 'mdns');
      const listener = edge.start(
        process.execPath,
        '-e',
        `const listen = (group, port) => {
        const socket = require('node:dgram').createSocket({ type: 'udp4', reuseAddr: true });
        socket.on('message', (data, { address, port: from }) => socket.send('heard ' + data, from, address));
        socket.bind(port, () => { socket.addMembership(group, '10.9.0.1'); console.log('up', port); });
      };
      listen('224.0.0.251', 5353);
      listen('239.255.255.250', 1900);`,
      );
      await Promise.all([listener.line(/up 5353/), listener.line(/up 1900/)]);
      const heard = await guest.node(
        `const socket = require('node:dgram').createSocket('udp4');
      socket.on('message', (data) => { console.log(String(data)); if (/mdns/.test(data)) socket.close(); });
      socket.send('ssdp', 1900, '239.255.255.250', () => socket.send('mdns', 5353, '224.0.0.251'));`,
      );
      expect(heard).toBe('heard mdns');
    });

    test('refuses a namespace that is not there, and says so', async () => {
      const { code, stderr } = await run('--netns', 'nobody-has-this').ended;
      expect({ code, stderr }).toEqual({
        code: 1,
        stderr: expect.stringMatching(
          /drydock net: The network namespace \/run\/netns\/nobody-has-this does not/,
        ),
      });
    });
  },
);
