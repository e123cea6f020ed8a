/** What the command line refuses, with what it says: in this process, where nothing has to be started for it. */
import { Command } from 'commander';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { defineNet } from './cli.ts';

const signals = ['SIGINT', 'SIGTERM'] as const;
let said: string;
let listeners: NodeJS.SignalsListener[];

beforeEach(() => {
  said = '';
  listeners = signals.flatMap((signal) => process.listeners(signal) as NodeJS.SignalsListener[]);
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    said += text;
    return true;
  });
});
afterEach(() => {
  vi.restoreAllMocks();
  process.exitCode = undefined;
  for (const signal of signals)
    for (const listener of process.listeners(signal) as NodeJS.SignalsListener[])
      if (!listeners.includes(listener)) process.off(signal, listener);
});

async function run(...args: string[]): Promise<void> {
  // As the program has it: what stands behind a command's name is that command's.
  const program = new Command('drydock').enablePositionalOptions();
  defineNet(program.command('net'), '0.0.0');
  await program.parseAsync(['net', ...args], { from: 'user' });
}

test.each([
  [['--drop', '5'], /^stack\.faults\.drop \(--drop\) is "5", no chance/],
  [['--pcap', '/dev/null', '--pcap-filter', 'tcp prt 1'], /prt/],
  [['--multicast', 'mdns,bonjour'], /^"bonjour" is no multicast group/],
  [['--policy', '/nowhere.yaml'], /^Cannot read \/nowhere\.yaml/],
  [
    ['--port', 'hyperv-listen://x'],
    /^vpnkit\.ports \(--port\) is "hyperv-listen:\/\/x", which is neither the path/,
  ],
  [['--introspection', 'fd:x'], /^vpnkit\.introspection \(--introspection\) is "fd:x"/],
  [['--ethernet', 'hyperv-listen://x'], /hyperv-listen:\/\/x" is no place for vpnkit/],
  [['--forwards', '/nowhere.json'], /^Cannot read \/nowhere\.json/],
  [['--diagnostics', 'x'], /^vpnkit\.diagnostics \(--diagnostics\) is "x"/],
  [['--allowed-bind-addresses', 'lo'], /^stack\.allowedBindAddresses has "lo"/],
])('net %j is refused with its reason', async (args, reason) => {
  await run(...args);
  expect(process.exitCode).toBe(1);
  expect(said.startsWith('drydock net: ')).toBe(true);
  expect(said.slice('drydock net: '.length)).toMatch(reason);
});

test('a flag of VPNKit that is needless says so and goes on', async () => {
  await run('--vsock-path', 'x', '--listen-backlog', '5', '--drop', '5');
  expect(said).toMatch(
    /--vsock-path of VPNKit has no effect: .*\n.*--listen-backlog of VPNKit has no effect/,
  );
});

test.each([
  [['dhcp', '--subnet', 'nonsense'], /no IPv4 subnet/],
  [['dhcp', '--subnet', '10.99.0.0/24'], /--serverIP/],
  [['dhcp6', '--subnet6', 'fd00:77::/64'], /interface.*relays/],
  [
    ['dhcp6', '--subnet6', 'fd00:77::/64', '--interface', 'v0', '--stateless', '--first', 'fd00:77::5'],
    /--stateless/,
  ],
  [['dns', '--name', 'web'], /web=10\.0\.0\.2/],
  [['ntp', '--listen', '192.0.2.1:12345'], /EADDRNOTAVAIL/],
  [['proxy', '--listen', 'x'], /no place to listen/],
])('net %j is refused with the remedy', async (args, remedy) => {
  await run(...args);
  expect(process.exitCode).toBe(1);
  expect(said.startsWith(`drydock net ${args[0]}: `)).toBe(true);
  expect(said).toMatch(remedy);
});
