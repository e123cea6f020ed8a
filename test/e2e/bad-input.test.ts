import { existsSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { afterEach, beforeAll, expect, it } from 'vitest';
import { type Docker, IMAGE, until } from '../support/e2e/daemon.ts';
import { litterBesidesProcesses } from '../support/e2e/litter.ts';
import { describeE2e, sharedDocker, uniqueName } from '../support/e2e/session.ts';

describeE2e('bad input', () => {
  let docker: Docker;
  const create = (body: object, query = '') => docker.api('POST', `/v1.43/containers/create${query}`, body);

  beforeAll(() => {
    docker = sharedDocker();
  });
  afterEach(async () => {
    await docker.removeAll();
    // Whatever was done to it, it still works.
    expect(await docker.ok(['run', '--rm', IMAGE, 'echo', 'alive'])).toBe('alive');
  });

  it('an unknown image is 404 in the words of docker', async () => {
    expect(await create({ Image: 'nope:1' })).toMatchObject({
      status: 404,
      body: expect.stringMatching(/No such image: nope:1/),
    });
  });

  it('an unknown container is 404', async () => {
    expect(await docker.api('GET', '/v1.43/containers/nope/json')).toMatchObject({
      status: 404,
      body: expect.stringMatching(/No such container: nope/),
    });
  });

  it('an unknown route is 404 as JSON', async () => {
    const { status, body } = await docker.api('GET', '/v1.43/nothing/here');
    expect([status, JSON.parse(body)]).toEqual([404, { message: 'page not found' }]);
  });

  it('a version above ours is refused with the maximum, one below with the minimum', async () => {
    expect(await docker.api('GET', '/v9.99/info')).toMatchObject({
      status: 400,
      body: expect.stringMatching(
        /client version 9\.99 is too new\. Maximum supported API version is 1\.\d+/,
      ),
    });
    expect(await docker.api('GET', '/v1.1/info')).toMatchObject({
      status: 400,
      body: expect.stringMatching(/client version 1\.1 is too old\. Minimum supported API version is 1\.\d+/),
    });
  });

  it('malformed JSON is 400 and says where', async () => {
    const { status, body } = await docker.api('POST', '/v1.43/containers/create', '{"Image": "x", }');
    expect([status, typeof JSON.parse(body).message]).toEqual([400, 'string']);
  });

  it('JSON of the wrong shape is 400', async () => {
    expect((await docker.api('POST', '/v1.43/containers/create', '["a"]')).status).toBe(400);
    expect((await create({ Image: IMAGE, Env: 'A=b' })).status).toBe(400);
    expect((await create({ Image: IMAGE, HostConfig: { Memory: 'much' } })).status).toBe(400);
  });

  it('an oversized body is refused and not read to its end', async () => {
    const { status, body } = await docker
      .api('POST', '/v1.43/containers/create', `{"Image":"${'x'.repeat(40_000_000)}"}`)
      .catch((error: Error) => ({ status: 413, body: `{"message":"${error.message}"}` }));
    expect(status).toBeGreaterThanOrEqual(400);
    expect(status).toBeLessThan(500);
    expect(JSON.parse(body).message).toBeTruthy();
  });

  it('a name conflict is 409 and names the holder', async () => {
    const name = uniqueName('twice');
    const { body } = await create({ Image: IMAGE }, `?name=${name}`);
    const { status, body: refusal } = await create({ Image: IMAGE }, `?name=${name}`);
    expect(status).toBe(409);
    expect(refusal).toContain(
      `Conflict. The container name \\"/${name}\\" is already in use by container \\"${JSON.parse(body).Id}\\"`,
    );
  });

  it('a bad name is 400', async () => {
    expect((await create({ Image: IMAGE }, '?name=..%2Fx')).status).toBe(400);
  });

  it('a missing source of --mount is refused; -v makes the folder as docker does', async () => {
    const { code, stderr } = await docker.run([
      'run',
      '--rm',
      '--mount',
      'type=bind,src=/no/such/folder,dst=/x',
      IMAGE,
      'true',
    ]);
    expect([code, stderr]).toEqual([
      125,
      expect.stringMatching(/bind source path does not exist: \/no\/such\/folder/),
    ]);
    expect(existsSync('/no')).toBe(false);
  });

  it('a relative or impossible mount target is refused', async () => {
    expect(
      (await docker.run(['run', '--rm', '--mount', 'type=bind,src=/tmp,dst=relative', IMAGE, 'true'])).code,
    ).toBe(125);
    expect((await docker.run(['run', '--rm', '-v', '/tmp:/', IMAGE, 'true'])).code).toBe(125);
  });

  it('a port in use is told at once, and nothing is left of the container’s start', async () => {
    const holder = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => holder.once('listening', resolve));
    const { port } = holder.address() as AddressInfo;
    const before = litterBesidesProcesses(docker.address);
    try {
      const name = uniqueName('port');
      const { code, stderr } = await docker.run([
        'run',
        '-d',
        '--name',
        name,
        '-p',
        `127.0.0.1:${port}:80`,
        IMAGE,
        'sleep',
        '1000',
      ]);
      expect(code).toBe(125);
      expect(stderr).toMatch(new RegExp(`127\\.0\\.0\\.1:${port}.*(already allocated|in use)`));
      expect(await docker.ok(['inspect', name, '--format', '{{.State.Status}} {{.State.Pid}}'])).toBe(
        'created 0',
      );
      await docker.ok(['rm', name]);
      await expect.poll(() => litterBesidesProcesses(docker.address)).toEqual(before);
    } finally {
      holder.close();
    }
  });

  it('an option that cannot be honoured is answered by an error or a warning, not by silence', async () => {
    const { status, body } = await create({ Image: IMAGE, HostConfig: { Runtime: 'no-such-runtime' } });
    expect([status, body]).toEqual([400, expect.stringMatching(/no-such-runtime/)]);
    const swarm = await docker.api('GET', '/v1.43/nodes');
    expect([swarm.status, swarm.body]).toEqual([
      503,
      expect.stringMatching(/This node is not a swarm manager/),
    ]);
  });

  it('a client that hangs up in mid-stream ends its stream and nothing else', async () => {
    const id = await docker.ok(['run', '-d', IMAGE, 'sh', '-c', 'while :; do echo tick; sleep 0.02; done']);
    for (const request of [
      `GET /v1.43/containers/${id}/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n`,
      `POST /v1.43/containers/${id}/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n`,
      'GET /v1.43/events HTTP/1.1\r\nHost: d\r\n\r\n',
      `GET /v1.43/containers/${id}/stats HTTP/1.1\r\nHost: d\r\n\r\n`,
      'POST /v1.43/images/load HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n400\r\nhalf',
    ]) {
      const socket = connect(docker.address.socketPath);
      socket.on('error', () => {});
      socket.write(request);
      if (!request.startsWith('POST /v1.43/images'))
        await new Promise((resolve) => socket.once('data', resolve));
      socket.destroy();
    }
    expect(await docker.ok(['inspect', id, '--format', '{{.State.Running}}'])).toBe('true');
    await until(async () => (await docker.api('GET', '/_ping')).status === 200, 'the daemon answers');
  });

  it('nonsense on the socket is answered or closed', async () => {
    const socket = connect(docker.address.socketPath);
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.on('error', () => {});
    socket.resume();
    socket.write('\x00\x01\x02 nonsense\r\n\r\n');
    await closed;
  });
});
