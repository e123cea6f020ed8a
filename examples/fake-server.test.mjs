// A test that gives its guest a fake server. The guest is any program in a network namespace of its own; it looks up a
// name, finds the gateway, and talks to a server of this process, as if that were the real one. Needs root.
//
//   sudo node --test fake-server.test.mjs
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { createNetstack } from 'drydock/netstack';

test('the program under test orders one boat', async () => {
  const asked = [];
  const fake = createServer((request, response) => {
    asked.push(`${request.method} ${request.headers.host}${request.url}`);
    response.end('{"boats": 1}\n');
  }).listen(0, '127.0.0.1');
  await once(fake, 'listening');

  const network = await createNetstack({
    name: 'test',
    subnet: '10.77.0.0/24',
    gatewayForwards: [{ protocol: 'tcp', port: 80, address: '127.0.0.1', targetPort: fake.address().port }],
  });
  await network.setHostNames({ 'api.example.com': network.gateway });

  const folder = mkdtempSync(join(tmpdir(), 'fake-server-'));
  writeFileSync(join(folder, 'resolv.conf'), `nameserver ${network.gateway}\n`);
  const guest = spawn(
    'unshare',
    [
      '--net',
      '--mount',
      'sh',
      '-c',
      'mount --bind "$1" /etc/resolv.conf; echo; read go; curl -s api.example.com/orders',
      'sh',
      join(folder, 'resolv.conf'),
    ],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  try {
    await once(guest.stdout, 'readable'); // its namespaces are there
    await network.attach({ pid: guest.pid, interfaceName: 'eth0', names: ['guest'] });
    guest.stdin.end('go\n');
    assert.match(await text(guest.stdout), /"boats": 1/);
    assert.deepEqual(asked, ['GET api.example.com/orders']);
  } finally {
    guest.kill();
    await network.close();
    fake.close();
    rmSync(folder, { recursive: true });
  }
});
