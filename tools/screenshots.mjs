// Takes the documentation's pictures of the web page: a daemon of its own with a few containers that talk, and headless Chromium. Needs
// root, docker and chromium.
//
//   node tools/screenshots.mjs
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { chromium } from 'playwright-core';

/** Long enough for the plot to have a shape. */
const WATCHED_MS = 75_000;
const file = (path) => new URL(`../${path}`, import.meta.url).pathname;
const folder = mkdtempSync(join(tmpdir(), 'drydock-pictures-'));
mkdirSync(join(folder, 'site'));
writeFileSync(join(folder, 'site/index.html'), 'ahoy\n');
const address = `unix://${folder}/docker.sock`;
const docker = (...args) =>
  execFileSync('docker', args, {
    env: { ...process.env, DOCKER_HOST: address },
    stdio: ['ignore', 'pipe', 'inherit'],
  });

/** A server of this host that sends more and less, as people do. */
const server = createServer((socket) => {
  const begin = performance.now();
  const timer = setInterval(() => {
    const phase = (performance.now() - begin) / 1000;
    socket.write(Buffer.alloc(2000 * (3 + 2 * Math.sin(phase / 6) + Math.sin(phase / 2.3))));
  }, 100);
  socket.on('error', () => {}).on('close', () => clearInterval(timer));
  socket.resume();
}).listen(0, '127.0.0.1');
await once(server, 'listening');
const { port } = server.address();

const places = ['--data-root', join(folder, 'data'), '--exec-root', join(folder, 'run')];
const daemon = spawn(
  process.execPath,
  [file('dist/daemon/bin.js'), 'daemon', '-H', address, ...places, '--dashboard', '127.0.0.1:0'],
  { stdio: ['ignore', 'pipe', 'inherit'] },
);
try {
  let banner = '';
  while (!banner.includes('#')) banner += (await once(daemon.stdout, 'data'))[0];
  const [url] = /http:\/\/127\S+/.exec(banner);
  const run = (name, script, ...options) =>
    docker('run', '-d', '--name', name, ...options, 'drydock/host', 'node', '-e', script);
  const talk = `const net = require('net'); const socket = net.connect(${port}, 'host.docker.internal'); socket.resume();`;
  const site = `require('http').createServer((q, r) => require('fs').createReadStream('/site/index.html').pipe(r)).listen(80);`;
  run(
    'web',
    `${site} ${talk} setInterval(() => fetch('http://127.0.0.1/').then((r) => r.text()), 300);`,
    '-v',
    `${folder}/site:/site`,
  );
  run('api', `${talk} setInterval(() => socket.write(Buffer.alloc(3000)), 200);`);
  run('worker', `${talk} setInterval(() => require('dns').resolve4('db.internal.example', () => {}), 5000);`);
  run(
    'nosy',
    `const net = require('net'); setInterval(() => net.connect(80, '169.254.169.254').on('error', () => {}), 4000);`,
  );
  run('migrate', '');
  const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
  const page = await browser.newPage({ viewport: { width: 1280, height: 1120 } });
  await page.goto(url);
  await sleep(WATCHED_MS);
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: file(`docs/images/dashboard-${colorScheme}.png`), fullPage: true });
  }
  await browser.close();
} finally {
  server.close();
  daemon.kill('SIGINT');
  await once(daemon, 'exit');
  rmSync(folder, { recursive: true });
}
process.exit(0);
