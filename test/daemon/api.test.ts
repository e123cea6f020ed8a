/** The HTTP surface: versions, errors, bodies, queries, lists, and that events and summaries say what clients read. */
import { readFile } from 'node:fs/promises';
import { type AddressInfo, connect } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { EVENTS_WAITING_MAX } from '../../daemon/limits.ts';
import { eventually, type FakeDaemon, fakeDaemon } from '../support/daemon/fakes.ts';

let daemon: FakeDaemon;

type Method = 'GET' | 'POST' | 'DELETE' | 'HEAD' | 'PUT';

async function call(method: Method, url: string, body?: object): Promise<{ status: number; body: never }> {
  const response = await daemon.app.inject({ method, url, ...(body && { payload: body }) });
  return { status: response.statusCode, body: (response.body === '' ? undefined : response.json()) as never };
}

async function create(name: string, body: object = {}): Promise<string> {
  const answer = await call('POST', `/containers/create?name=${name}`, { Image: 'test', ...body });
  expect(answer.status, JSON.stringify(answer.body)).toBe(201);
  return (answer.body as { Id: string }).Id;
}

describe('requests', () => {
  beforeAll(async () => {
    daemon = await fakeDaemon();
  });
  afterAll(() => daemon.close());

  it.each(['', '/v1.24', '/v1.51', '/v1.41'])(
    '%s/_ping has the headers that clients negotiate with',
    async (prefix) => {
      for (const method of ['GET', 'HEAD'] as const) {
        const response = await daemon.app.inject({ method, url: `${prefix}/_ping` });
        expect(response.statusCode).toBe(200);
        expect(response.headers).toMatchObject({
          'api-version': '1.51',
          'builder-version': '1',
          'docker-experimental': 'false',
          ostype: 'linux',
          swarm: 'inactive',
          'cache-control': 'no-cache, no-store, must-revalidate',
          pragma: 'no-cache',
        });
        expect(response.body).toBe(method === 'GET' ? 'OK' : '');
      }
    },
  );

  it.each([
    ['/v1.52/info', 400, 'client version 1.52 is too new. Maximum supported API version is 1.51'],
    ['/v2.0/info', 400, 'client version 2.0 is too new. Maximum supported API version is 1.51'],
    [
      '/v1.23/info',
      400,
      'client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version',
    ],
    ['/nothing', 404, 'page not found'],
    ['/v1.47/containers/x/nothing', 404, 'page not found'],
    ['/vx/info', 404, 'page not found'],
  ])('GET %s is %i', async (url, status, message) => {
    expect(await call('GET', url)).toEqual({ status, body: { message } });
  });

  it('an error is application/json to the letter: the CLI shows the raw text of any other type', async () => {
    const response = await daemon.app.inject('/containers/none/json');
    expect(response.headers['content-type']).toBe('application/json');
  });

  it.each([
    ['malformed', '{"Image":', 'application/json', 400, /invalid JSON/],
    ['empty', '', 'application/json', 400, /got EOF while reading request body/],
    ['a list', '[]', 'application/json', 400, /invalid JSON/],
    [
      'of another type',
      'Image: test',
      'text/plain',
      400,
      /unsupported Content-Type header \(text\/plain\): must be 'application\/json'/,
    ],
    ['without a type', '{"Image":"test"}', '', 400, /malformed Content-Type header/],
    [
      'with a poisoned prototype',
      '{"Image":"test","__proto__":{"x":1}}',
      'application/json',
      400,
      /invalid JSON/,
    ],
    ['too large', `{"Image":"${'x'.repeat(9 << 20)}"}`, 'application/json', 413, /too large/],
    ['with text for a list', '{"Image":"test","Env":"A=b"}', 'application/json', 400, /Env must be array/],
    [
      'with text for a number',
      '{"Image":"test","HostConfig":{"Memory":"much"}}',
      'application/json',
      400,
      /HostConfig.Memory/,
    ],
  ])('a body that is %s', async (_, payload, type, status, message) => {
    const response = await daemon.app.inject({
      method: 'POST',
      url: '/containers/create',
      payload,
      headers: type === '' ? {} : { 'content-type': type },
    });
    expect(response.statusCode).toBe(status);
    expect(response.json().message).toMatch(message);
  });

  it.each([
    ['POST', '/swarm/join', 501],
    ['GET', '/swarm', 503],
    ['GET', '/services', 503],
    ['GET', '/nodes/x', 503],
    ['POST', '/secrets/create', 503],
    ['POST', '/containers/x/checkpoints', 501],
    ['GET', '/plugins/x/json', 404],
  ] as const)('%s %s, which is not there, is %i with a reason', async (method, url, status) => {
    const answer = await call(method, url, method === 'POST' ? {} : undefined);
    expect(answer.status).toBe(status);
    expect((answer.body as { message: string }).message).not.toBe('');
  });

  it.each([
    ['/containers/json?filters={', /invalid filter/],
    ['/containers/json?filters={"planet":["x"]}', /invalid filter 'planet'/],
    ['/containers/json?filters={"status":["asleep"]}', /invalid filter 'status=asleep'/],
    ['/containers/json?limit=few', /invalid syntax/],
    ['/events?filters={"x":["y"]}', /invalid filter 'x'/],
    ['/events?since=yesterday', /is not a time/],
    ['/networks?filters={"type":["odd"]}', /invalid filter/],
    ['/volumes?filters={"dangling":["maybe"]}', /invalid filter 'dangling/],
    ['/system/df?type=moon', /unknown object type: moon/],
  ])('GET %s is 400', async (url, message) => {
    const answer = await call('GET', encodeURI(url));
    expect(answer.status).toBe(400);
    expect((answer.body as { message: string }).message).toMatch(message);
  });

  it('fields are known in any case, as Go reads them; keys of maps stay as they are', async () => {
    const { status, body } = await call('POST', '/containers/create?name=cased', {
      image: 'test',
      CMD: ['ls'],
      labels: { Cmd: 'x' },
      hostConfig: { memory: 64 << 20, portBindings: { '80/tcp': [{ hostPort: '80' }] } },
    });
    expect(status, JSON.stringify(body)).toBe(201);
    expect((await call('GET', '/containers/cased/json')).body).toMatchObject({
      Path: 'ls',
      Config: { Labels: { Cmd: 'x' } },
      HostConfig: { Memory: 64 << 20, PortBindings: { '80/tcp': [{ HostPort: '80' }] } },
    });
  });

  it('an unknown image is 404 in the words that make the CLI pull it', async () => {
    expect(await call('POST', '/containers/create', { Image: 'nobody/has:it' })).toEqual({
      status: 404,
      body: { message: 'No such image: nobody/has:it' },
    });
    expect(await call('POST', '/containers/create', { Image: 'plain' })).toMatchObject({
      body: { message: 'No such image: plain:latest' },
    });
  });
});

describe('resources', () => {
  beforeEach(async () => {
    daemon = await fakeDaemon();
  });
  afterEach(() => daemon.close());

  it('the list filters as docker ps does, in both encodings', async () => {
    await create('first', { Labels: { a: '1' }, ExposedPorts: { '80/tcp': {} } });
    await create('second', { Labels: { a: '2', b: '' }, HostConfig: { Binds: ['vol:/v'] } });
    await create('third');
    await call('POST', '/containers/second/start');
    const names = async (filters: object, more = '&all=1'): Promise<string[]> => {
      const url = `/containers/json?filters=${encodeURIComponent(JSON.stringify(filters))}${more}`;
      return ((await call('GET', url)).body as { Names: string[] }[]).map((c) => c.Names[0]!.slice(1));
    };
    expect(await names({})).toEqual(['third', 'second', 'first']);
    expect(await names({}, '')).toEqual(['second']);
    expect(await names({}, '&limit=2')).toEqual(['third', 'second']);
    expect(await names({ label: ['a'] })).toEqual(['second', 'first']);
    expect(await names({ label: { 'a=1': true } })).toEqual(['first']);
    expect(await names({ label: ['a', 'b'] })).toEqual(['second']);
    expect(await names({ label: ['from=image'] })).toHaveLength(3);
    expect(await names({ status: ['created'] }, '')).toEqual(['third', 'first']);
    expect(await names({ name: ['^/sec', 'ird$'] })).toEqual(['third', 'second']);
    expect(await names({ before: ['second'] })).toEqual(['first']);
    expect(await names({ since: ['second'] })).toEqual(['third']);
    expect(await names({ ancestor: ['test'] })).toHaveLength(3);
    expect(await names({ ancestor: ['other'] })).toEqual([]);
    expect(await names({ volume: ['vol'] })).toEqual(['second']);
    expect(await names({ expose: ['80/tcp'] })).toEqual(['first']);
    expect(await names({ network: ['bridge'] })).toHaveLength(3);
    expect(await names({ health: ['none'] })).toHaveLength(3);
  });

  it('a summary has what docker ps shows', async () => {
    await create('web', {
      Cmd: ['serve', 'a b'],
      HostConfig: { PortBindings: { '80/tcp': [{ HostIp: '127.0.0.1', HostPort: '80' }] } },
    });
    await call('POST', '/containers/web/start');
    daemon.clock.advance(130_000);
    const [summary] = (await call('GET', '/containers/json?size=1')).body as object[];
    expect(summary).toMatchObject({
      Names: ['/web'],
      Image: 'test',
      Command: "serve 'a b'",
      State: 'running',
      Status: 'Up 2 minutes',
      Ports: [{ IP: '127.0.0.1', PrivatePort: 80, PublicPort: 80, Type: 'tcp' }],
      SizeRw: 10,
      SizeRootFs: 1010,
      Labels: { from: 'image' },
      HostConfig: { NetworkMode: 'bridge' },
      NetworkSettings: {
        Networks: { bridge: { IPAddress: '172.17.0.2', IPPrefixLen: 16, Gateway: '172.17.0.1' } },
      },
    });
  });

  it('networks: made, listed, inspected with their members, protected, removed', async () => {
    expect((await call('POST', '/networks/create', { Name: 'mine', Labels: { l: '1' } })).status).toBe(201);
    expect((await call('POST', '/networks/create', { Name: 'mine' })).status).toBe(409);
    const id = await create('one', {
      HostConfig: { NetworkMode: 'mine' },
      NetworkingConfig: { EndpointsConfig: { mine: { Aliases: ['db'] } } },
    });
    await call('POST', '/containers/one/start');
    expect(daemon.networks.attached.at(-1)).toMatchObject({
      interfaceName: 'eth0',
      names: ['one', 'db', id.slice(0, 12)],
    });
    const network = (await call('GET', '/networks/mine')).body as { Containers: object; IPAM: object };
    expect(network.IPAM).toMatchObject({ Config: [{ Subnet: '172.18.0.0/16', Gateway: '172.18.0.1' }] });
    expect(network.Containers).toMatchObject({ [id]: { Name: 'one', IPv4Address: '172.18.0.2/16' } });
    expect((await call('DELETE', '/networks/mine')).status).toBe(403);
    expect(await call('DELETE', '/networks/bridge')).toEqual({
      status: 403,
      body: { message: 'bridge is a pre-defined network and cannot be removed' },
    });
    await call('POST', '/networks/create', { Name: 'second' });
    expect(
      (
        await call('POST', '/networks/second/connect', {
          Container: 'one',
          EndpointConfig: { Aliases: ['x'] },
        })
      ).status,
    ).toBe(200);
    expect(daemon.networks.attached.at(-1)).toMatchObject({
      interfaceName: 'eth1',
      names: expect.arrayContaining(['one', 'x']),
    });
    expect((await call('POST', '/networks/second/connect', { Container: 'one' })).status).toBe(403);
    expect((await call('POST', '/networks/second/disconnect', { Container: 'one' })).status).toBe(200);
    await call('POST', '/containers/one/kill');
    expect(daemon.networks.guests).toBe(0);
    await call('DELETE', '/containers/one');
    expect((await call('POST', '/networks/prune')).body).toEqual({ NetworksDeleted: ['mine', 'second'] });
    expect((await call('GET', '/networks/mine')).status).toBe(404);
    expect(daemon.networks.open).toBe(0);
  });

  it('networks from a configuration have what it says, and hold it', async () => {
    const IPAM = { Config: [{ Subnet: '10.9.0.0/24' }] };
    await call('POST', '/networks/create', { Name: 'config', ConfigOnly: true, IPAM, Labels: { a: 'b' } });
    const made = await call('POST', '/networks/create', { Name: 'net', ConfigFrom: { Network: 'config' } });
    expect(made.status).toBe(201);
    expect((await call('GET', '/networks/config')).body).toMatchObject({
      Driver: 'null',
      ConfigOnly: true,
      IPAM,
    });
    expect((await call('GET', '/networks/net')).body).toMatchObject({
      Driver: 'bridge',
      ConfigFrom: { Network: 'config' },
      IPAM: { Config: [{ Subnet: '10.9.0.0/24', Gateway: '10.9.0.1' }] },
      Labels: { a: 'b' },
    });
    for (const [body, message] of [
      [{ Labels: { c: 'd' } }, /user specified configurations are not supported/],
      [{ Options: { c: 'd' } }, /network driver options are not supported/],
      [{ ConfigFrom: { Network: 'bridge' } }, /configuration network "bridge" does not exist/],
    ] as const) {
      const refused = await call('POST', '/networks/create', {
        Name: 'other',
        ConfigFrom: { Network: 'config' },
        ...body,
      });
      expect((refused.body as { message: string }).message).toMatch(message);
    }
    await create('on', { HostConfig: { NetworkMode: 'config' } });
    expect((await call('POST', '/containers/on/start')).body).toEqual({
      message: 'cannot create endpoint on configuration-only network',
    });
    await call('DELETE', '/containers/on');
    expect((await call('DELETE', '/networks/config')).body).toEqual({
      message: 'error while removing network: configuration network "config" is in use',
    });
    await call('DELETE', '/networks/net');
    expect((await call('DELETE', '/networks/config')).status).toBe(204);
  });

  it('fixed addresses only where docker allows them', async () => {
    await call('POST', '/networks/create', { Name: 'auto' });
    await call('POST', '/networks/create', { Name: 'own', IPAM: { Config: [{ Subnet: '10.1.0.0/24' }] } });
    const start = async (network: string, address: string): Promise<{ status: number; body: never }> => {
      const name = `c${Math.random()}`.replace('0.', '');
      await create(name, {
        HostConfig: { NetworkMode: network },
        NetworkingConfig: { EndpointsConfig: { [network]: { IPAMConfig: { IPv4Address: address } } } },
      });
      return call('POST', `/containers/${name}/start`);
    };
    expect((await start('own', '10.1.0.77')).status).toBe(204);
    expect(daemon.networks.attached.at(-1)?.address).toBe('10.1.0.77');
    expect((await start('own', '10.2.0.77')).status).toBe(400);
    expect((await start('auto', '172.18.0.9')).status).toBe(400);
    const onBridge = { EndpointsConfig: { bridge: { IPAMConfig: { IPv4Address: '172.17.0.9' } } } };
    const refused = await call('POST', '/containers/create', { Image: 'test', NetworkingConfig: onBridge });
    expect(refused.status).toBe(400);
  });

  it('volumes: made on use, shared, in use, anonymous ones go with --rm and rm -v, prune spares named ones', async () => {
    await create('one', { HostConfig: { Binds: ['data:/data'] }, Volumes: { '/anon': {} } });
    const volumes = async (): Promise<string[]> =>
      ((await call('GET', '/volumes')).body as { Volumes: { Name: string }[] }).Volumes.map((v) => v.Name);
    const [anonymous, named] = (await volumes()).sort((a, b) => b.length - a.length);
    expect(anonymous).toMatch(/^[0-9a-f]{64}$/);
    expect(named).toBe('data');
    const busy = await call('DELETE', '/volumes/data');
    expect(busy.status).toBe(409);
    expect((busy.body as { message: string }).message).toMatch(/volume is in use - \[[0-9a-f]{64}\]/);
    await call('DELETE', '/containers/one?v=1');
    expect(await volumes()).toEqual(['data']);
    await call('POST', '/volumes/create', {});
    expect((await call('POST', '/volumes/prune')).body).toMatchObject({
      VolumesDeleted: [expect.any(String)],
    });
    expect(await volumes()).toEqual(['data']);
    expect((await call('POST', '/volumes/prune?filters={"all":["true"]}')).body).toMatchObject({
      VolumesDeleted: ['data'],
    });
    expect((await call('GET', '/volumes/data')).status).toBe(404);
  });

  it('a bind whose source is missing: --mount refuses it at create, -v makes it at start', async () => {
    const missing = `${daemon.folder}/missing`;
    const refused = await call('POST', '/containers/create', {
      Image: 'test',
      HostConfig: { Mounts: [{ Type: 'bind', Source: missing, Target: '/x' }] },
    });
    expect(refused).toEqual({
      status: 400,
      body: { message: `invalid mount config for type "bind": bind source path does not exist: ${missing}` },
    });
    expect(daemon.services.context.containers.list()).toEqual([]);
    await create('maker', { HostConfig: { Binds: [`${missing}:/x`] } });
    expect((await call('POST', '/containers/maker/start')).status).toBe(204);
    expect([...daemon.mounted]).toEqual([missing]);
  });

  it('events tell a container’s life in order, with docker’s attributes; since and until replay and end', async () => {
    const id = await create('told', { HostConfig: { AutoRemove: true }, Labels: { l: 'v' } });
    await call('POST', '/containers/told/start');
    daemon.runtime.last.process!.exit(2);
    const { events: bus } = daemon.services.context;
    await eventually(
      () => bus.past(0, Number.POSITIVE_INFINITY, (e) => e.Action === 'destroy').length === 1,
      'the container is removed',
    );
    daemon.clock.advance(1000);
    const filters = encodeURIComponent(JSON.stringify({ type: ['container'] }));
    const answer = daemon.app.inject(
      `/events?since=0&until=${daemon.clock.wallMs() / 1000}&filters=${filters}`,
    );
    await eventually(() => Number.isFinite(daemon.clock.nextAt()), 'the stream waits for its end');
    daemon.clock.advance(1);
    const events = (await answer).body
      .trim()
      .split('\r\n')
      .map((line) => JSON.parse(line));
    expect(events.map((e) => e.Action)).toEqual(['create', 'start', 'die', 'destroy']);
    expect(events[2]).toMatchObject({
      status: 'die',
      id,
      from: 'test',
      Type: 'container',
      Actor: { ID: id, Attributes: { exitCode: '2', image: 'test', name: 'told', l: 'v', from: 'image' } },
      scope: 'local',
    });
    const times = events.map((e) => e.timeNano);
    expect([...times].sort((a, b) => a - b)).toEqual(times);
    expect(new Set(times).size).toBe(times.length);
  });

  it('a client that does not read its events is hung up on, and holds no more of them', async () => {
    await daemon.app.listen({ host: '127.0.0.1', port: 0 });
    const { port } = daemon.app.server.address() as AddressInfo;
    const client = connect(port, '127.0.0.1', () =>
      client.write('GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'),
    );
    client.on('error', () => {});
    await new Promise((resolve) => client.once('data', resolve));
    client.pause();
    const { events } = daemon.services.context;
    expect(events.listeners).toBe(1);
    const fill = 'x'.repeat(1000);
    for (let n = 0; n < 10 * EVENTS_WAITING_MAX && events.listeners > 0; n++) {
      events.emit('container', 'fuzz', 'id', { fill });
      if (n % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    expect(events.listeners).toBe(0);
    client.destroy();
  });

  it('update changes limits of a running container and its policy; what is fixed is refused', async () => {
    await create('one', { HostConfig: { Memory: 64 << 20 } });
    await call('POST', '/containers/one/start');
    expect(
      (
        await call('POST', '/containers/one/update', {
          Memory: 32 << 20,
          MemorySwap: 64 << 20,
          RestartPolicy: { Name: 'always' },
        })
      ).status,
    ).toBe(200);
    expect(daemon.runtime.last.spec.limits).toMatchObject({
      memoryBytes: 32 << 20,
      memorySwapBytes: 64 << 20,
    });
    const { HostConfig } = (await call('GET', '/containers/one/json')).body as { HostConfig: object };
    expect(HostConfig).toMatchObject({ Memory: 32 << 20, RestartPolicy: { Name: 'always' } });
    expect((await call('POST', '/containers/one/update', { Memory: 100 })).status).toBe(400);
  });

  it('stats: one sample has a CPU delta; one-shot does not wait', async () => {
    await create('one');
    await call('POST', '/containers/one/start');
    const shot = (await call('GET', '/containers/one/stats?stream=0&one-shot=1')).body as Record<
      string,
      never
    >;
    expect(shot).toMatchObject({
      name: '/one',
      cpu_stats: { cpu_usage: { total_usage: 5e9 } },
      pids_stats: { current: 1 },
    });
    const pending = daemon.app.inject('/containers/one/stats?stream=0');
    await eventually(() => Number.isFinite(daemon.clock.nextAt()), 'it waits for the second sample');
    daemon.clock.advance(1000);
    const sample = JSON.parse((await pending).body);
    expect(sample.precpu_stats.cpu_usage.total_usage).toBe(5e9);
    expect(sample.preread).not.toMatch(/^0001/);
    expect(sample.memory_stats.limit).toBeGreaterThan(0);
  });

  it('a network of another container: shares its namespace and files, and needs it to run', async () => {
    await create('holder');
    await create('guest', { HostConfig: { NetworkMode: 'container:holder' } });
    expect((await call('POST', '/containers/guest/start')).status).toBe(409);
    await call('POST', '/containers/holder/start');
    const holder = daemon.runtime.last;
    expect((await call('POST', '/containers/guest/start')).status).toBe(204);
    expect(daemon.runtime.last.spec.namespaces.network).toEqual({ pid: holder.pid });
    const hosts = (spec: typeof holder.spec): string | undefined =>
      spec.mounts.find((m) => m.target === '/etc/hosts')?.source;
    expect(hosts(daemon.runtime.last.spec)).toBe(hosts(holder.spec));
    expect(daemon.networks.guests).toBe(1);
  });
});

describe('addresses', () => {
  beforeEach(async () => {
    daemon = await fakeDaemon();
  });
  afterEach(() => daemon.close());

  it('come from --ip-range and spare --aux-address and the gateway, also for starts at once', async () => {
    await call('POST', '/networks/create', {
      Name: 'narrow',
      IPAM: {
        Config: [
          { Subnet: '10.1.0.0/24', IPRange: '10.1.0.0/29', AuxiliaryAddresses: { router: '10.1.0.3' } },
        ],
      },
    });
    const names = ['aa', 'bb', 'cc', 'dd', 'ee', 'ff'];
    for (const name of names) await create(name, { HostConfig: { NetworkMode: 'narrow' } });
    const answers = await Promise.all(names.map((name) => call('POST', `/containers/${name}/start`)));
    expect(answers.map((a) => a.status).sort()).toEqual([204, 204, 204, 204, 204, 403]);
    expect(daemon.networks.attached.map((a) => a.address).sort()).toEqual(
      [2, 4, 5, 6, 7].map((n) => `10.1.0.${n}`),
    );
  });

  it('a network that is missing is found at the start, as in dockerd', async () => {
    await create('lost', { HostConfig: { NetworkMode: 'nope' } });
    expect(await call('POST', '/containers/lost/start')).toEqual({
      status: 404,
      body: { message: 'network nope not found' },
    });
  });
});

describe('names of neighbours', () => {
  beforeEach(async () => {
    daemon = await fakeDaemon();
  });
  afterEach(() => daemon.close());

  const hosts = async (name: string): Promise<string> => {
    const { HostsPath } = (await call('GET', `/containers/${name}/json`)).body as { HostsPath: string };
    return readFile(HostsPath, 'utf8');
  };

  it('on a container’s further networks are told to the DNS that it asks, and come and go with them', async () => {
    await call('POST', '/networks/create', { Name: 'back' });
    await create('front');
    await call('POST', '/networks/back/connect', { Container: 'front' });
    await create('database', {
      HostConfig: { NetworkMode: 'back' },
      NetworkingConfig: { EndpointsConfig: { back: { Aliases: ['db'] } } },
    });
    await call('POST', '/containers/front/start');
    const front = daemon.runtime.last.pid;
    const told = (): object => daemon.networks.resolving.get(front)?.[0]?.names ?? {};
    expect(told()).toEqual({});
    await call('POST', '/containers/database/start');
    expect(told()).toMatchObject({ database: ['172.18.0.3'], db: ['172.18.0.3'] });
    expect(daemon.networks.resolving.get(daemon.runtime.last.pid)?.[0]).toEqual({ names: {} });
    await call('POST', '/containers/database/kill');
    expect(told()).toEqual({});
  });

  it('--dns on a user network is asked by its DNS, but for a server that is a neighbour', async () => {
    await call('POST', '/networks/create', { Name: 'mine' });
    const start = async (name: string, Dns: string[], NetworkMode: string): Promise<string> => {
      await create(name, { HostConfig: { NetworkMode, Dns } });
      await call('POST', `/containers/${name}/start`);
      const { ResolvConfPath } = (await call('GET', `/containers/${name}/json`)).body as {
        ResolvConfPath: string;
      };
      return (await readFile(ResolvConfPath, 'utf8')).split('\n')[0]!;
    };
    expect(await start('forwarded', ['9.9.9.9'], 'mine')).toBe('nameserver 172.18.0.1');
    expect(daemon.networks.resolving.get(daemon.runtime.last.pid)).toEqual([
      { names: {}, upstreams: ['9.9.9.9'] },
    ]);
    expect(await start('beside', ['172.18.0.53'], 'mine')).toBe('nameserver 172.18.0.53');
    expect(await start('direct', ['9.9.9.9'], 'bridge')).toBe('nameserver 9.9.9.9');
  });

  it('links on a user network are completed when the neighbour starts', async () => {
    await call('POST', '/networks/create', { Name: 'mine' });
    await create('web', {
      HostConfig: { NetworkMode: 'mine' },
      NetworkingConfig: { EndpointsConfig: { mine: { Links: ['late:store'] } } },
    });
    await call('POST', '/containers/web/start');
    await create('late', { HostConfig: { NetworkMode: 'mine' } });
    await call('POST', '/containers/late/start');
    expect(await hosts('web')).toMatch(/^172\.18\.0\.3\tstore [0-9a-f]{12} late$/m);
  });

  it('a link on the default network gives hosts and environment', async () => {
    await create('db', { ExposedPorts: { '5432/tcp': {} } });
    await create('web', { HostConfig: { Links: ['db:store'] } });
    expect((await call('POST', '/containers/web/start')).status).toBe(400);
    await call('POST', '/containers/db/start');
    expect((await call('POST', '/containers/web/start')).status).toBe(204);
    expect(daemon.runtime.last.spec.process.env).toContain('STORE_PORT=tcp://172.17.0.2:5432');
    expect(await hosts('web')).toMatch(/^172\.17\.0\.2\tstore [0-9a-f]{12} db$/m);
  });
});
