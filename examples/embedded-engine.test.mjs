// A Docker Engine inside this process: an API on a socket of its own, state in a folder of its own, gone at the end. Needs root.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';
import { DEFAULTS, openDaemon } from 'drydock/daemon';

test('a container runs in an engine of the test', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'embedded-'));
  const socketPath = join(folder, 'docker.sock');
  const engine = await openDaemon(
    {
      ...DEFAULTS,
      hosts: [`unix://${socketPath}`],
      dataRoot: join(folder, 'data'),
      execRoot: join(folder, 'run'),
    },
    '1.0.0',
  );
  const call = async (method, path, body) => {
    const { promise, resolve, reject } = withResolvers();
    const headers = { 'content-type': 'application/json' };
    request({ socketPath, method, path, headers }, resolve)
      .on('error', reject)
      .end(body && JSON.stringify(body));
    const answer = await promise;
    return buffer(answer);
  };
  try {
    const { Id } = JSON.parse(
      await call('POST', '/containers/create', { Image: engine.hostImage, Cmd: ['echo', 'ahoy'], Tty: true }),
    );
    await call('POST', `/containers/${Id}/start`);
    assert.deepEqual(JSON.parse(await call('POST', `/containers/${Id}/wait`)), { StatusCode: 0 });
    assert.equal(String(await call('GET', `/containers/${Id}/logs?stdout=1`)).trim(), 'ahoy');
    await call('DELETE', `/containers/${Id}`);
  } finally {
    await engine.close();
    rmSync(folder, { recursive: true });
  }
});

/** Promise.withResolvers, which Node 20 has not. */
function withResolvers() {
  let resolve;
  let reject;
  const promise = new Promise((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}
