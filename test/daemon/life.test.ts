/** Containers from create to removal, over the API, with a runtime that does what the test says. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { newState, startsWithDaemon } from '../../daemon/container/lifecycle.ts';
import { eventually, type FakeDaemon, type FakeProcess, fakeDaemon } from '../support/daemon/fakes.ts';

let daemon: FakeDaemon;

beforeEach(async () => {
  daemon = await fakeDaemon();
});
afterEach(() => daemon.close());

interface Answer {
  status: number;
  body: Record<string, never>;
}

async function call(method: 'GET' | 'POST' | 'DELETE', url: string, body?: object): Promise<Answer> {
  const response = await daemon.app.inject({ method, url, ...(body && { payload: body }) });
  return { status: response.statusCode, body: response.body === '' ? {} : response.json() };
}

async function create(name: string, body: object = {}): Promise<string> {
  const { status, body: answer } = await call('POST', `/containers/create?name=${name}`, {
    Image: 'test',
    ...body,
  });
  expect(status, JSON.stringify(answer)).toBe(201);
  return answer.Id!;
}

async function state(name: string): Promise<Record<string, unknown>> {
  return (await call('GET', `/containers/${name}/json`)).body.State!;
}

/** Everything of the host that a container can hold. */
function held(): object {
  return {
    roots: daemon.roots.mounted.size,
    mounts: daemon.mounted.size,
    guests: daemon.networks.guests,
    ports: daemon.networks.ports.size,
    jails: daemon.runtime.jails.filter((jail) => !jail.destroyed).length,
  };
}

const NOTHING = { roots: 0, mounts: 0, guests: 0, ports: 0, jails: 0 };

function processOf(): FakeProcess {
  return daemon.runtime.last.process!;
}

describe('the life of a container', () => {
  it('goes from created over running to exited, and holds nothing of the host before and after', async () => {
    await create('one', {
      HostConfig: {
        PortBindings: { '80/tcp': [{ HostIp: '127.0.0.1', HostPort: '8080' }] },
        Binds: ['/tmp:/data'],
      },
    });
    expect(await state('one')).toMatchObject({ Status: 'created', Running: false, Pid: 0 });
    expect(held()).toEqual(NOTHING);
    expect((await call('POST', '/containers/one/start')).status).toBe(204);
    expect(await state('one')).toMatchObject({
      Status: 'running',
      Running: true,
      Pid: daemon.runtime.last.pid,
    });
    expect(held()).toEqual({ roots: 1, mounts: 1, guests: 1, ports: 1, jails: 1 });
    expect((await call('POST', '/containers/one/start')).status).toBe(304);
    const waiting = call('POST', '/containers/one/wait');
    processOf().exit(3);
    expect((await waiting).body).toEqual({ StatusCode: 3 });
    expect(await state('one')).toMatchObject({ Status: 'exited', ExitCode: 3, Pid: 0 });
    expect(held()).toEqual(NOTHING);
    expect((await call('DELETE', '/containers/one')).status).toBe(204);
    expect((await call('GET', '/containers/one/json')).status).toBe(404);
    expect(daemon.roots.made.size).toBe(0);
  });

  it('stop sends the stop signal, and SIGKILL when the time is over', async () => {
    await create('gentle', { StopSignal: 'SIGUSR1' });
    await call('POST', '/containers/gentle/start');
    const gentle = processOf();
    expect((await call('POST', '/containers/gentle/stop')).status).toBe(204);
    expect(gentle.signals).toEqual([10]);
    expect((await call('POST', '/containers/gentle/stop')).status).toBe(304);

    await create('stubborn');
    await call('POST', '/containers/stubborn/start');
    const stubborn = processOf();
    stubborn.ignored.add(15);
    const stopping = call('POST', '/containers/stubborn/stop?t=7');
    await eventually(() => stubborn.signals.length === 1, 'SIGTERM was sent');
    daemon.clock.advance(6999);
    expect(stubborn.signals).toEqual([15]);
    daemon.clock.advance(1);
    expect((await stopping).status).toBe(204);
    expect(stubborn.signals).toEqual([15, 9]);
    expect(await state('stubborn')).toMatchObject({ Status: 'exited', ExitCode: 137 });
  });

  it.each([
    ['nosuch', 127, 400],
    ['/etc/passwd', 126, 400],
  ])(
    'a start of %s fails with exit code %i and status %i, and leaves nothing behind',
    async (program, code, status) => {
      await create('bad', { Cmd: [program], HostConfig: { PublishAllPorts: true, Binds: ['/tmp:/data'] } });
      const answer = await call('POST', '/containers/bad/start');
      expect(answer.status).toBe(status);
      expect(answer.body.message).toContain(program);
      expect(await state('bad')).toMatchObject({ Status: 'created', ExitCode: code });
      expect(held()).toEqual(NOTHING);
    },
  );

  it('a port in use is refused in dockerd’s words and leaves nothing behind', async () => {
    const ports = { HostConfig: { PortBindings: { '80/tcp': [{ HostIp: '127.0.0.1', HostPort: '8080' }] } } };
    await create('first', ports);
    await create('second', ports);
    await call('POST', '/containers/first/start');
    const before = held();
    const { status, body } = await call('POST', '/containers/second/start');
    expect(status).toBe(500);
    expect(body.message).toMatch(
      /driver failed programming external connectivity on endpoint second \([0-9a-f]{64}\): Bind for 127\.0\.0\.1:8080 failed: port is already allocated/,
    );
    expect(held()).toEqual(before);
  });

  it('of a range of host ports the first free one is taken', async () => {
    const ports = {
      HostConfig: { PortBindings: { '80/tcp': [{ HostIp: '127.0.0.1', HostPort: '8080-8081' }] } },
    };
    for (const name of ['first', 'second', 'third']) await create(name, ports);
    expect((await call('POST', '/containers/first/start')).status).toBe(204);
    expect((await call('POST', '/containers/second/start')).status).toBe(204);
    expect((await call('POST', '/containers/third/start')).status).toBe(500);
    const { NetworkSettings } = (await call('GET', '/containers/second/json')).body;
    expect((NetworkSettings as unknown as { Ports: object }).Ports).toEqual({
      '80/tcp': [{ HostIp: '127.0.0.1', HostPort: '8081' }],
    });
  });

  it('--rm removes the container after its end, and after a start that failed', async () => {
    const id = await create('fleeting', { HostConfig: { AutoRemove: true } });
    const removed = call('POST', `/containers/${id}/wait?condition=removed`);
    await call('POST', '/containers/fleeting/start');
    processOf().exit(5);
    expect((await removed).body).toEqual({ StatusCode: 5 });
    expect((await call('GET', `/containers/${id}/json`)).status).toBe(404);

    await create('failing', { Cmd: ['nosuch'], HostConfig: { AutoRemove: true } });
    await call('POST', '/containers/failing/start');
    await eventually(
      () => daemon.services.context.containers.list().length === 0,
      'the failed container is removed',
    );
  });

  it('an abandoned pipe does not hold back the end of the container', async () => {
    await create('forked');
    await call('POST', '/containers/forked/start');
    const process = processOf();
    // A grandchild outside still has the pipe: the process is gone, its output does not end.
    process.stdout.end = () => process.stdout;
    process.exit(0);
    await eventually(() => Number.isFinite(daemon.clock.nextAt()), 'the grace period runs');
    daemon.clock.advance(2000);
    await eventually(
      () => daemon.services.context.containers.find('forked').record.state.status === 'exited',
      'exited',
    );
  });

  it('pause freezes: no exec, no second pause; kill lets it go on to die', async () => {
    await create('ice');
    await call('POST', '/containers/ice/start');
    expect((await call('POST', '/containers/ice/pause')).status).toBe(204);
    expect(await state('ice')).toMatchObject({ Status: 'paused', Running: true, Paused: true });
    expect((await call('POST', '/containers/ice/pause')).status).toBe(409);
    expect((await call('POST', '/containers/ice/exec', { Cmd: ['true'] })).status).toBe(409);
    expect((await call('DELETE', '/containers/ice')).status).toBe(409);
    expect((await call('POST', '/containers/ice/kill')).status).toBe(204);
    expect(daemon.runtime.last.paused).toBe(false);
    expect(await state('ice')).toMatchObject({ Status: 'exited', ExitCode: 137 });
  });
});

describe('restart policies', () => {
  /** Ends the running process and returns how long the daemon waits before the next start. */
  const endRun = async (code: number): Promise<number> => {
    const runs = daemon.runtime.jails.length;
    const before = daemon.clock.now();
    processOf().exit(code);
    const container = daemon.services.context.containers.find('loop');
    await eventually(
      () => container.record.state.status === 'exited' || container.restartTimer !== undefined,
      'the run has ended',
    );
    if (container.record.state.status === 'exited') return Number.NaN;
    daemon.clock.advance(daemon.clock.nextAt() - daemon.clock.now());
    const waited = daemon.clock.now() - before;
    await eventually(
      () => daemon.runtime.jails.length > runs && container.record.state.status === 'running',
      'restarted',
    );
    return waited;
  };

  it('always: the delay doubles from 100 ms, and starts over after a run of ten seconds', async () => {
    await create('loop', { HostConfig: { RestartPolicy: { Name: 'always' } } });
    await call('POST', '/containers/loop/start');
    expect([await endRun(0), await endRun(1), await endRun(1)]).toEqual([100, 200, 400]);
    daemon.clock.advance(10_000);
    expect(await endRun(1)).toBe(100);
    expect((await call('GET', '/containers/loop/json')).body.RestartCount).toBe(4);
    await call('POST', '/containers/loop/stop');
    expect(await state('loop')).toMatchObject({ Status: 'exited' });
  });

  it('on-failure:2 gives up after two restarts, and does nothing after success', async () => {
    await create('loop', { HostConfig: { RestartPolicy: { Name: 'on-failure', MaximumRetryCount: 2 } } });
    await call('POST', '/containers/loop/start');
    expect([await endRun(1), await endRun(1), await endRun(1)]).toEqual([100, 200, Number.NaN]);
    await call('POST', '/containers/loop/start');
    expect(await endRun(0)).toBeNaN();
  });

  it('a container that waits to be restarted can be stopped', async () => {
    await create('loop', { HostConfig: { RestartPolicy: { Name: 'always' } } });
    await call('POST', '/containers/loop/start');
    processOf().exit(1);
    const container = daemon.services.context.containers.find('loop');
    await eventually(() => container.restartTimer !== undefined, 'it waits');
    expect((await call('POST', '/containers/loop/stop')).status).toBe(204);
    daemon.clock.advance(60_000);
    expect(await state('loop')).toMatchObject({ Status: 'exited' });
    expect(daemon.runtime.jails.length).toBe(1);
  });

  it('after the daemon’s restart one that waited to be restarted starts at once, and its delays begin anew', async () => {
    await create('loop', { HostConfig: { RestartPolicy: { Name: 'on-failure', MaximumRetryCount: 4 } } });
    await call('POST', '/containers/loop/start');
    expect([await endRun(1), await endRun(1)]).toEqual([100, 200]);
    processOf().exit(1);
    const waiting = daemon.services.context.containers.find('loop');
    await eventually(() => waiting.restartTimer !== undefined, 'it waits');
    await daemon.services.context.containers.shutdown(0);
    await daemon.app.close();
    daemon = await fakeDaemon(daemon.folder);
    await daemon.services.context.containers.startByPolicy();
    expect(await state('loop')).toMatchObject({ Status: 'running' });
    expect([await endRun(1), await endRun(1)]).toEqual([100, 200]);
  });
});

describe('a wall clock that is set', () => {
  const YEAR_MS = 365 * 86_400_000;
  const startMs = Date.UTC(2026, 5, 1);

  it.each([
    ['forward', YEAR_MS],
    ['back', -YEAR_MS],
  ])('%s by a year changes no wait, and what happens then has its time', async (_, jumpMs) => {
    daemon.clock.setWall(startMs);
    await create('probed', { Healthcheck: { Test: ['CMD', 'true'], Interval: 1e9 } });
    await call('POST', '/containers/probed/start');
    const probed = daemon.runtime.last;
    await create('loop', { HostConfig: { RestartPolicy: { Name: 'always' } } });
    await call('POST', '/containers/loop/start');
    processOf().exit(1);
    const loop = daemon.services.context.containers.find('loop');
    await eventually(() => loop.restartTimer !== undefined, 'it waits to be restarted');

    daemon.clock.setWall(startMs + jumpMs);
    daemon.clock.advance(100);
    const { events } = daemon.services.context;
    await eventually(
      () => events.past(0, Number.POSITIVE_INFINITY, ({ Action }) => Action === 'start').length === 3,
      'it is restarted after its 100 ms',
    );
    expect(loop.record.state.startedAt.slice(0, 4)).toBe(String(jumpMs > 0 ? 2027 : 2025));
    daemon.clock.advance(1000);
    await eventually(() => probed.execs.length > 0, 'the probe runs after its second');

    // Clients ask with their own clock, which was set too.
    const seconds = (startMs + jumpMs) / 1000;
    const filters = encodeURIComponent(JSON.stringify({ event: ['start'] }));
    const ending = daemon.app.inject(`/events?since=${seconds}&until=${seconds + 1}&filters=${filters}`);
    await eventually(() => events.listeners > 0, 'it listens');
    daemon.clock.advance(1);
    const told = (await ending).body.trim().split('\r\n');
    expect(told.map((line) => JSON.parse(line).Actor.Attributes.name)).toEqual(['loop']);
  });
});

describe('when the daemon ends', () => {
  it('creates and starts under way end first, later ones are refused, and nothing of the host is held', async () => {
    const names = ['aa', 'bb', 'cc', 'dd'];
    for (const name of names)
      await create(name, {
        HostConfig: { Binds: ['/tmp:/data'], RestartPolicy: { Name: 'always' }, PublishAllPorts: true },
        ExposedPorts: { '80/tcp': {} },
      });
    const restarting = daemon.services.context.containers.find('dd');
    await call('POST', '/containers/dd/start');
    processOf().exit(1);
    await eventually(() => restarting.restartTimer !== undefined, 'it waits to be restarted');
    const starts = ['aa', 'bb', 'cc'].map((name) => call('POST', `/containers/${name}/start`));
    const creates = [1, 2].map((n) => call('POST', `/containers/create?name=late-${n}`, { Image: 'test' }));
    await eventually(() => daemon.roots.mounted.size > 0, 'a start is under way');
    await daemon.services.context.containers.shutdown(1);
    const answers = await Promise.all([...starts, ...creates]);
    for (const { status } of answers) expect([201, 204, 503]).toContain(status);
    expect(held()).toEqual(NOTHING);
    expect((await call('POST', '/containers/aa/start')).status).toBe(503);
    expect((await call('POST', '/containers/create', { Image: 'test' })).status).toBe(503);
    daemon.clock.advance(60_000);
    expect(held()).toEqual(NOTHING);
    for (const name of names) expect((await state(name)).Running).toBe(false);
  });
});

describe('after the daemon was killed', () => {
  it('containers that ran are exited, --rm ones are gone, and those with a policy start again', async () => {
    await create('plain');
    await create('fleeting', { HostConfig: { AutoRemove: true } });
    await create('wanted', { HostConfig: { RestartPolicy: { Name: 'always' } } });
    await create('fresh');
    for (const name of ['plain', 'fleeting', 'wanted']) await call('POST', `/containers/${name}/start`);
    const next = await fakeDaemon(daemon.folder);
    try {
      expect(next.services.recovered.join('\n')).toMatch(
        /killed .*\n[\s\S]*marked container plain as exited/,
      );
      const { containers } = next.services.context;
      expect(containers.list().map((c) => [c.name, c.record.state.status, c.record.state.exitCode])).toEqual([
        ['fresh', 'created', 0],
        ['wanted', 'exited', 137],
        ['plain', 'exited', 137],
      ]);
      await containers.startByPolicy();
      expect(containers.find('wanted').record.state.status).toBe('running');
    } finally {
      await next.app.close();
    }
  });
});

describe('what starts with the daemon', () => {
  it.each([
    ['on-failure', 0, 3, false, 0, true],
    ['on-failure', 0, 0, false, 0, false],
    ['on-failure', 0, 137, true, 0, false],
    ['on-failure', 2, 3, false, 2, false],
    ['unless-stopped', 0, 0, false, 0, true],
    ['unless-stopped', 0, 0, true, 0, false],
    ['always', 0, 0, true, 0, true],
    ['no', 0, 1, false, 0, false],
  ])('%s:%i, ended with %i, stopped by its user: %s, restarted %i times: %s', (...facts) => {
    const [Name, MaximumRetryCount, exitCode, stoppedByUser, restartCount, starts] = facts;
    const ended = { ...newState(), status: 'exited' as const, exitCode, stoppedByUser, restartCount };
    expect(startsWithDaemon({ Name, MaximumRetryCount }, ended)).toBe(starts);
    expect(startsWithDaemon({ Name, MaximumRetryCount }, newState())).toBe(false);
  });
});

describe('names and ids', () => {
  it('a name in use is refused in docker’s words; a rename frees the old one', async () => {
    const id = await create('taken');
    const again = await call('POST', '/containers/create?name=taken', { Image: 'test' });
    expect(again).toEqual({
      status: 409,
      body: {
        message: `Conflict. The container name "/taken" is already in use by container "${id}". You have to remove (or rename) that container to be able to reuse that name.`,
      },
    });
    expect((await call('POST', '/containers/taken/rename?name=other')).status).toBe(204);
    expect((await call('GET', '/containers/other/json')).body.Name).toBe('/other');
    await create('taken');
  });

  it('two creates of one name at once: one is made, one is refused', async () => {
    const answers = await Promise.all(
      [1, 2].map(() => call('POST', '/containers/create?name=same', { Image: 'test' })),
    );
    expect(answers.map((a) => a.status).sort()).toEqual([201, 409]);
    expect(daemon.roots.made.size).toBe(1);
  });

  it('finds by id, unique prefix, name, name with slash; an ambiguous prefix is an error', async () => {
    const ids: string[] = [];
    for (let n = 0; n < 17; n++) ids.push(await create(`c-${n}`));
    const id = ids[3]!;
    for (const reference of [id, id.slice(0, 12), 'c-3', '%2Fc-3'])
      expect((await call('GET', `/containers/${reference}/json`)).body.Id).toBe(id);
    // Of 17 ids two begin with the same digit.
    const digit = [...'0123456789abcdef'].find((d) => ids.filter((i) => i.startsWith(d)).length > 1)!;
    expect(await call('GET', `/containers/${digit}/json`)).toMatchObject({
      status: 400,
      body: { message: `multiple IDs found with provided prefix: ${digit}` },
    });
    expect(await call('GET', '/containers/nobody/json')).toEqual({
      status: 404,
      body: { message: 'No such container: nobody' },
    });
  });
});
