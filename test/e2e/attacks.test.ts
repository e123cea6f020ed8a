/** What somebody could try who may speak to the API a little, or who runs in a container, and what comes of it. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, expect, it } from 'vitest';
import { type Docker, IMAGE, TestDaemon } from '../support/e2e/daemon.ts';
import { describeE2e, sharedDocker, uniqueName } from '../support/e2e/session.ts';

const COPIES = 6;
/** Swaps a folder and a link to a folder of the host, as fast as it can. */
const SWAP = `const fs=require('fs');fs.mkdirSync('/a/real',{recursive:true});fs.writeFileSync('/a/real/f','inside');
fs.symlinkSync(process.argv[1],'/a/link');fs.symlinkSync('real','/a/swap');console.log('up');
for(let n=0;;n++){const t='/a/t'+n;fs.symlinkSync(n%2?'real':'link',t);fs.renameSync(t,'/a/swap')}`;

describeE2e('the API, attacked', () => {
  let docker: Docker;
  let folder: string | undefined;

  beforeAll(() => {
    docker = sharedDocker();
  });
  afterEach(async () => {
    await docker.removeAll();
    if (folder) rmSync(folder, { recursive: true });
    folder = undefined;
  });

  /** Sends bytes as they are. @returns all that is answered until the daemon closes or `until` is seen */
  const raw = (bytes: string, until?: string): Promise<string> =>
    new Promise((resolve, reject) => {
      let answer = '';
      const socket = connect(docker.address.socketPath, () => socket.write(bytes));
      const finish = (): void => {
        socket.destroy();
        resolve(answer);
      };
      socket.on('data', (chunk) => {
        answer += chunk.toString('latin1');
        if (until !== undefined && answer.includes(until)) finish();
      });
      socket.on('end', finish);
      socket.on('error', reject);
    });

  it('its socket is for root and its group alone', () => {
    const { mode, uid } = statSync(docker.address.socketPath);
    expect([mode & 0o777, uid]).toEqual([0o660, 0]);
    const asOther = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', 'curl', '-sS'];
    const [program = '', ...args] = [
      ...asOther,
      '--unix-socket',
      docker.address.socketPath,
      'http://d/_ping',
    ];
    expect(() => execFileSync(program, args, { stdio: 'pipe' })).toThrow(
      /permission denied|Couldn't connect|Failed to connect/i,
    );
  });

  it('its log tells which user and process asked', async () => {
    const address = TestDaemon.makeAddress();
    const daemon = await TestDaemon.launch(address, ['--log-level', 'debug']);
    try {
      const asked = spawnSync('curl', [
        '-sS',
        '--unix-socket',
        address.socketPath,
        'http://d/containers/nope/json',
      ]);
      const lines = (): string[] =>
        daemon.log.split('\n').filter((line) => line.includes('/containers/nope/json'));
      // What was asked, and that it failed.
      await expect.poll(() => lines().length).toBe(2);
      for (const line of lines()) expect(line).toMatch(new RegExp(` pid=${asked.pid} uid=0 gid=0`));
    } finally {
      await daemon.stop();
      TestDaemon.forget(address);
    }
  });

  it('headers that tell two lengths, or none that is right, are refused before an upgrade', async () => {
    const container = await docker.ok(['run', '-d', IMAGE, 'sleep', '1000']);
    const attach = `POST /containers/${container}/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n`;
    for (const lengths of [
      'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n',
      'Content-Length: 5\r\nContent-Length: 6\r\n',
      'Transfer-Encoding: chunked\r\n',
      'Content-Length: -1\r\n',
      'Content-Length : 5\r\n',
    ])
      expect(await raw(`${attach}${lengths}\r\n0\r\n\r\n`), lengths).toMatch(/^HTTP\/1\.1 400 /);
  });

  it('a request behind an upgrade is input of the container, and no request', async () => {
    const container = await docker.ok(['create', '-i', IMAGE, 'cat']);
    await docker.ok(['start', container]);
    const smuggled = `DELETE /containers/${container}?force=1 HTTP/1.1\r\nHost: d\r\n\r\n`;
    const answer = await raw(
      `POST /containers/${container}/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n${smuggled}`,
      'Host: d\r\n\r\n',
    );
    expect(answer).toContain(smuggled);
    expect(await docker.ok(['ps', '-aq', '--no-trunc'])).toContain(container);
  });

  it('a container that swaps folders for links under cp neither gets at the host’s files nor has them copied out', async () => {
    folder = mkdtempSync(join(tmpdir(), 'drydock-host-'));
    writeFileSync(join(folder, 'f'), 'secret');
    const name = uniqueName('swaps');
    await docker.ok(['run', '-d', '--name', name, IMAGE, 'node', '-e', SWAP, '--', folder]);
    await expect.poll(() => docker.ok(['logs', name])).toBe('up');
    const archive = execFileSync('tar', ['-c', '-C', '/etc', 'hostname']);
    const path = (text: string): string => `/containers/${name}/archive?path=${encodeURIComponent(text)}`;
    // A folder that is gone in the middle breaks the archive off.
    const copied = (asked: string): Promise<string> =>
      docker.api('GET', path(asked)).then(({ body }) => body, String);
    for (let n = 0; n < COPIES; n++) {
      // Each may find the folder or the link, inside the container; what it must not find is the host.
      await docker.api('PUT', path('/a/swap'), archive.toString('latin1'), {
        'content-type': 'application/x-tar',
      });
      for (const asked of ['/a/swap/f', '/a/swap/']) expect(await copied(asked)).not.toContain('secret');
    }
    expect(readdirSync(folder)).toEqual(['f']);
    expect(readFileSync(join(folder, 'f'), 'utf8')).toBe('secret');
  });

  it.each<[method: string, path: string, body: object | undefined]>([
    ['POST', '/containers/create?name=..%2F..%2Fx', { Image: IMAGE }],
    ['POST', '/containers/create?name=%1b%5B2J', { Image: IMAGE }],
    ['POST', '/volumes/create', { Name: '../../x' }],
    ['POST', '/volumes/create', { Name: 'x\u001b[2J' }],
    ['POST', '/networks/create', { Name: 'x\u001b[2J' }],
    ['POST', '/containers/create', { Image: IMAGE, HostConfig: { Binds: ['vol/../../etc:/x'] } }],
    ['POST', '/build?dockerfile=..%2F..%2Fetc%2Fpasswd', undefined],
    ['GET', '/images/..%2F..%2Fetc%2Fpasswd/json', undefined],
    ['GET', '/containers/..%2F..%2Fvolumes/json', undefined],
    ['GET', '/volumes/..%2Fnetworks', undefined],
    ['POST', '/images/x/tag?repo=..%2Fx', undefined],
  ])('%s %s leads nowhere', async (method, path, body) => {
    const { status, body: text } = await docker.api(method, path, body);
    expect(status, text).toBeGreaterThanOrEqual(400);
    expect(status, text).toBeLessThan(500);
    expect(text).not.toContain('root:x:0');
    expect(text).not.toContain('\u001b');
  });
});
