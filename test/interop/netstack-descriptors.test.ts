/**
 * A process that has no file descriptor left to accept with: its listeners rest instead of spinning, and serve who waits once
 * there are descriptors again. The limit is that of a process of the test's own.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { compiledEntry } from '#common/entry';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'netstack-descriptors-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Runs a module with 64 descriptors at most, and gives what it prints as JSON. */
function run(script: string): unknown {
  const { stdout, stderr } = spawnSync(
    'sh',
    ['-c', 'ulimit -n 64; exec "$0" --input-type=module -e "$1" "$2"', process.execPath, script, folder],
    { encoding: 'utf8', timeout: 20_000 },
  );
  if (stdout === '') throw new Error(stderr);
  return JSON.parse(stdout);
}

const COMMON = `
  import { closeSync, openSync } from 'node:fs';
  import net from 'node:net';
  const folder = process.argv[1];
  const turn = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  /** Opens all that can be opened; a call gives it back. */
  function exhaust() {
    const taken = [];
    try { for (;;) taken.push(openSync('/dev/null')); } catch {}
    return () => { for (const fd of taken) closeSync(fd); };
  }
`;

test("the network's own listeners, for ports and for machines, rest and then serve", () => {
  const told = run(`${COMMON}
    import { Poller } from ${JSON.stringify(compiledEntry('netstack/host/poller'))};
    import { NativeHost } from ${JSON.stringify(compiledEntry('netstack/host/native'))};
    import { LinkListeners } from ${JSON.stringify(compiledEntry('netstack/link/listeners'))};
    let warnings = 0;
    const log = { debug() {}, info() {}, warn() { warnings++; }, error() {} };
    const poller = new Poller();
    const host = new NativeHost(poller, log, () => performance.now());
    let accepted = 0;
    const sink = { connected() {}, readable() {}, writable() {}, failed() {} };
    const loopback = new Uint8Array([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 127, 0, 0, 1]);
    const port = host.listen(loopback, 0, 0, { accepted: () => (accepted++, sink) }).port;
    const fabric = { addPort: () => ({ close() {} }) };
    const links = new LinkListeners({ poller, fabric, log, mtuBytes: 1500, registry: {}, wire: (link) => link });
    links.listen('qemu', { path: folder + '/qemu' });
    // The clients have their descriptors before there are none.
    const clients = [net.connect(port, '127.0.0.1'), net.connect(folder + '/qemu')];
    for (const client of clients) client.on('error', () => {});
    await Promise.all(clients.map((client) => new Promise((resolve) => client.on('connect', resolve))));
    const free = exhaust();
    const end = performance.now() + 500;
    let turns = 0;
    while (performance.now() < end) { poller.wait(100); poller.dispatch(); turns++; }
    const during = { accepted, machines: links.size, warnings, turns };
    free();
    const last = performance.now() + 5000;
    while ((accepted === 0 || links.size === 0) && performance.now() < last) { poller.wait(20); poller.dispatch(); await turn(1); }
    console.log(JSON.stringify({ ...during, after: { accepted, machines: links.size } }));
    process.exit();
  `) as { turns: number; warnings: number };
  expect(told).toMatchObject({ accepted: 0, machines: 0, after: { accepted: 1, machines: 1 } });
  // Two listeners, each asked about ten times a second at most; a spin would be thousands.
  expect(told.warnings).toBeLessThanOrEqual(12);
  expect(told.turns).toBeLessThanOrEqual(40);
});

test('the control endpoint refuses who comes meanwhile, does not spin, and serves afterwards', () => {
  const told = run(`${COMMON}
    import { createControlServer } from ${JSON.stringify(compiledEntry('netstack/api/control'))};
    import { listenAt } from ${JSON.stringify(compiledEntry('netstack/api/endpoint'))};
    const forwarder = { all: () => [] };
    const { server } = createControlServer({ network: {}, forwarder, captures: {}, proxies: {}, dial: {}, gatewayMac: '', log: console });
    await listenAt(server, 'unix://' + folder + '/control');
    const ask = (socket) => new Promise((resolve) => {
      let text = '';
      socket.on('data', (data) => { text += data; }).on('error', () => {}).on('close', () => resolve(text));
      socket.write('GET /services/forwarder/all HTTP/1.0\\r\\n\\r\\n');
    });
    const early = net.connect(folder + '/control');
    const free = exhaust();
    const heard = ask(early);
    const before = process.cpuUsage();
    await turn(500);
    const { user, system } = process.cpuUsage(before);
    free();
    await heard;
    const late = await ask(net.connect(folder + '/control'));
    console.log(JSON.stringify({ busyMs: Math.round((user + system) / 1000), late: late.split('\\r\\n')[0] }));
    process.exit();
  `) as { busyMs: number };
  expect(told).toMatchObject({ late: 'HTTP/1.1 200 OK' });
  expect(told.busyMs).toBeLessThan(250);
});
