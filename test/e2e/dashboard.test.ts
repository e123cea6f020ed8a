/** The web page in a real browser, over the shared daemon. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import axe, { type AxeResults } from 'axe-core';
import { type Browser, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { compiledEntry } from '#common/entry';
import { type DaemonAddress, type Docker, finish, IMAGE } from '../support/e2e/daemon.ts';
import { describeE2e, sharedDocker, uniqueName } from '../support/e2e/session.ts';
import { findProgram, lacking } from '../support/requirements.ts';

const urlOf = ({ dataRoot }: DaemonAddress): string =>
  readFileSync(join(dataRoot, '../exec/dashboard-url'), 'utf8').trim();

/** A raw request: fetch would not let Host be chosen. */
function get(url: string, path: string, headers: Record<string, string>): Promise<number> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    request({ host: hostname, port, path, headers }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    })
      .on('error', reject)
      .end();
  });
}

describeE2e('the dashboard', () => {
  if (lacking('chromium')) return;
  let docker: Docker;
  let url: string;
  let browser: Browser;
  let page: Page;
  let folder: string;
  const name = uniqueName('seen');
  // Sends a little, now and then, so that there is something to see and to record.
  const server = createServer((socket) => {
    const timer = setInterval(() => socket.write('ahoy\n'), 100);
    socket.on('error', () => {}).on('close', () => clearInterval(timer));
  });

  beforeAll(async () => {
    docker = sharedDocker();
    url = urlOf(docker.address);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    folder = mkdtempSync(join(tmpdir(), 'drydock-dashboard-'));
    writeFileSync(join(folder, 'note'), 'text');
    const { port } = server.address() as AddressInfo;
    // What clouds tell of a machine is denied to guests unless the policy says otherwise.
    const talk = `const net = require('net');
      net.connect(${port}, 'host.docker.internal').resume();
      net.connect(80, '169.254.169.254').on('error', () => {});`;
    const script = `cat /data/note; exec node -e "${talk}"`;
    await docker.ok(['run', '-d', '--name', name, '-v', `${folder}:/data`, IMAGE, 'sh', '-c', script]);
    browser = await chromium.launch({ executablePath: findProgram('chromium')!, args: ['--no-sandbox'] });
    page = await browser.newPage({ viewport: { width: 1100, height: 900 }, colorScheme: 'light' });
    await page.goto(url);
  });
  afterAll(async () => {
    await browser?.close();
    await docker.run(['rm', '-f', name]);
    await new Promise((resolve) => server.close(resolve));
    rmSync(folder, { recursive: true });
  });

  /** A row of the table with this caption, as a screen reader finds it, by the words in it. */
  const row = (table: string, ...words: string[]): ReturnType<Page['locator']> =>
    words.reduce(
      (rows, word) => rows.filter({ hasText: word }),
      page.getByRole('table', { name: table, exact: true }).getByRole('row'),
    );

  it('shows containers, flows, questions, addresses, what was denied, and file operations', async () => {
    await row('Containers', name, IMAGE, 'Up').waitFor();
    await row('Flows', name, 'tcp', 'established').waitFor();
    await row('DNS questions', name, 'host.docker.internal', 'NOERROR').first().waitFor();
    await row('Addresses', name, 'attached', 'bridge').waitFor();
    await row('Denied', name, '169.254.169.254').waitFor();
    await row('File operations', name, '/data', 'LOOKUP').waitFor();
    await page
      .getByRole('img', { name: new RegExp(`Who talks to whom: .*${name} with this host, .*B, RTT .*s`) })
      .waitFor();
    await page.getByRole('img', { name: /^Throughput of the last \d+ seconds/ }).waitFor();
    const tiles = page.locator('#tiles > div').filter({ hasText: 'Containers running' });
    expect(Number(await tiles.getByRole('definition').textContent())).toBeGreaterThan(0);
    expect(await page.getByRole('status').textContent()).toBe('live');
  });

  it('says the same in the terminal', async () => {
    const host = `unix://${docker.address.socketPath}`;
    const args = ['net', 'top', '--interval', '0.2', '--host', host];
    const { stdout } = await finish(
      spawn(process.execPath, [compiledEntry('daemon/bin'), ...args], { stdio: 'pipe' }),
    );
    expect(stdout).toMatch(new RegExp(`^${name} +tcp +.* established +\\d+ .*B/s`, 'm'));
  });

  it('gives a pcap of a flow by one click', async () => {
    const download = page.waitForEvent('download');
    await row('Flows', name).getByRole('button').click();
    const bytes = readFileSync(await (await download).path());
    // The magic number of a pcap file, and frames with the text that the server sends.
    expect([0xa1b2c3d4, 0xa1b23c4d]).toContain(bytes.readUInt32LE(0));
    expect(bytes.toString('latin1')).toContain('ahoy');
  });

  it('is used by the keyboard, and stands still when told to', async () => {
    await page.reload();
    await page.getByText('live').waitFor();
    await page.keyboard.press('Tab');
    expect(await page.evaluate('document.activeElement.textContent')).toBe('Skip to the tables');
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    const pause = page.getByRole('button', { name: 'Pause', pressed: true });
    await pause.waitFor();
    expect(await page.getByRole('status').textContent()).toBe('paused');
    await pause.press(' ');
    expect(await page.getByRole('status').textContent()).toBe('live');
  });

  it('is dark where that is wanted', async () => {
    const back = (): Promise<string> => page.evaluate('getComputedStyle(document.body).backgroundColor');
    const shown: string[] = [];
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme });
      shown.push(await back());
    }
    expect(shown).toEqual(['rgb(243, 245, 248)', 'rgb(14, 20, 27)']);
  });

  it.each(['light', 'dark'] as const)('has no fault that axe finds, in %s colours', async (colorScheme) => {
    await page.emulateMedia({ colorScheme });
    await page.evaluate(axe.source);
    const { violations } = await page.evaluate<AxeResults>('axe.run()');
    const faults = violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]);
    expect(faults).toEqual([]);
  });

  it('tells nothing without its token, nor to another name or site', async () => {
    const { host, hash } = new URL(url);
    const authorization = `Bearer ${hash.slice(1)}`;
    const path = '/api/snapshot';
    expect(await get(url, path, { host, authorization })).toBe(200);
    expect(await get(url, path, { host })).toBe(401);
    expect(await get(url, path, { host, authorization: `${authorization}x` })).toBe(401);
    expect(await get(url, path, { host: `rebound.example:${host.split(':')[1]}`, authorization })).toBe(421);
    expect(await get(url, path, { host, authorization, 'sec-fetch-site': 'cross-site' })).toBe(403);
    expect(await get(url, '/../../../etc/passwd', { host, authorization })).toBe(404);
  });
});
