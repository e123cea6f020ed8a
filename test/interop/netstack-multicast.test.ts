/**
 * Multicast between a guest and a network of its host, in namespaces:
 *
 *     guest --TAP-- [edge: drydock net --multicast mdns] --veth-- [lan: a responder of mDNS's groups and port]
 *
 * The responder and the guest are kernels: they join, report and answer as any machine does.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { compiledEntry } from '#common/entry';
import { Netns } from '../support/netns.ts';
import { lacking } from '../support/requirements.ts';

const ip = (...args: string[]): void => void execFileSync('ip', args);

/** Joins mDNS's group of a family on eth0 (`address`: its IPv4 address, where no route says so), shows what comes, and sends what it is told to. */
function member(family: 4 | 6, address: string | undefined, action: string): string {
  const group = family === 4 ? '224.0.0.251' : 'ff02::fb%eth0';
  const via = family === 6 ? ", '::%eth0'" : address ? `, '${address}'` : '';
  return `
    const socket = require('node:dgram').createSocket({ type: 'udp${family}', reuseAddr: true });
    const group = '${group}';
    socket.on('message', (message, from) => {
      console.log(String(message));
      ${action}
    });
    socket.bind(5353, () => {
      ${family === 6 ? "socket.setMulticastInterface('::%eth0');" : address ? `socket.setMulticastInterface('${address}');` : ''}
      socket.addMembership(group${via});
      console.log('joined');
    });`;
}

describe.skipIf(lacking('root', '/dev/net/tun', 'ip'))('with --multicast mdns', () => {
  const guest = new Netns();
  const edge = new Netns();
  const lan = new Netns();
  const folder = mkdtempSync(join(tmpdir(), 'netstack-multicast-'));

  beforeAll(async () => {
    const peer = ['peer', 'name', 'eth0', 'netns', lan.name];
    ip('-n', edge.name, 'link', 'add', 'uplink', 'type', 'veth', ...peer);
    for (const [ns, name, address, address6] of [
      [edge, 'uplink', '192.0.2.1/24', 'fe80::1/64'],
      [lan, 'eth0', '192.0.2.77/24', 'fe80::77/64'],
    ] as const) {
      ip('-n', ns.name, 'addr', 'add', address, 'dev', name);
      ip('-n', ns.name, 'addr', 'add', address6, 'dev', name, 'nodad');
      ip('-n', ns.name, 'link', 'set', name, 'up');
      ip('-n', ns.name, 'link', 'set', 'lo', 'up');
    }
    const pid = join(folder, 'pid');
    const network = edge.start(
      process.execPath,
      compiledEntry('daemon/bin'),
      'net',
      ...['--subnet', '10.217.0.0/24', '--subnet6', 'fd00:217::/64', '--multicast', 'mdns'],
      ...['--netns', guest.path, '--interface', 'eth0', '--pid-file', pid],
      ...['--log-file', join(folder, 'log')],
    );
    let ended: string | undefined;
    void network.ended.then(({ stderr }) => {
      ended = stderr;
    });
    await vi.waitFor(() => expect(existsSync(pid) || ended !== undefined).toBe(true), { timeout: 30_000 });
    expect(ended && `${ended}${readFileSync(join(folder, 'log'))}`).toBeUndefined();
  });

  afterAll(async () => {
    for (const ns of [guest, edge, lan]) await ns.remove();
    rmSync(folder, { recursive: true });
  });

  test.each([4, 6] as const)(
    'IPv%i: a question is answered, and announcements arrive while the guest has joined',
    async (family) => {
      // The neighbour answers the asker itself, and tells everybody that it was asked.
      const responder = lan.start(
        process.execPath,
        '-e',
        member(
          family,
          '192.0.2.77',
          "if (String(message) === 'who?') { socket.send('me', from.port, from.address); socket.send('asked', 5353, group); }",
        ),
      );
      await responder.line(/^joined$/);
      const asker = guest.start(
        process.execPath,
        '-e',
        `${member(family, undefined, '')}
      // Reports may be lost, and duplicate address detection may still run: ask until there is an answer.
      const timer = setInterval(() => socket.send('who?', 5353, group, () => {}), 200);
      socket.on('message', (message) => { if (String(message) === 'asked') clearInterval(timer); });`,
      );
      await asker.line(/^me$/);
      await asker.line(/^asked$/);
    },
  );
});
