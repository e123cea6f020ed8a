/** Calls on containers, their streams and files. */
import { file, tarOf } from '../images.ts';
import type { ContractClient } from './client.ts';
import { hijackCall, websocketCall } from './upgrade.ts';

const KEEP = ['sh', '-c', 'echo out; echo err >&2; exec sleep 1000'];

/** What the container of these cases is asked to be: something of each kind of field. */
export function createBody(image: string, extra: object = {}): object {
  return {
    Image: image,
    Cmd: KEEP,
    Env: ['A=b'],
    Labels: { contract: 'yes' },
    StopSignal: 'SIGKILL',
    StopTimeout: 1,
    ExposedPorts: { '80/tcp': {}, '53/udp': {} },
    Healthcheck: { Test: ['CMD', 'true'], Interval: 200_000_000 },
    Volumes: { '/anonymous': {} },
    HostConfig: {
      PortBindings: { '80/tcp': [{ HostIp: '127.0.0.1', HostPort: '' }] },
      Memory: 64 * 1024 * 1024,
      Mounts: [{ Type: 'tmpfs', Target: '/scratch' }],
      Ulimits: [{ Name: 'nofile', Soft: 1024, Hard: 1024 }],
      RestartPolicy: { Name: 'on-failure', MaximumRetryCount: 1 },
      LogConfig: { Type: 'json-file', Config: { 'max-size': '1m' } },
    },
    ...extra,
  };
}

/** @returns the id of a container that runs */
export async function containerCases(api: ContractClient, image: string): Promise<void> {
  const name = `contract-${api.minor}`;
  const create = 'POST /containers/create';
  await api.call(create, { body: { Image: 'no/such-image' }, status: 404 });
  await api.call(create, { body: { Image: 7 }, status: 400 });
  await api.call(create, { query: { name: '!' }, body: { Image: image }, status: 400 });
  const made = await api.call(create, { query: { name }, body: createBody(image), status: 201 });
  await api.call(create, { query: { name }, body: { Image: image }, status: 409 });
  const path = [made.json.Id as string];
  await api.call('GET /containers/{id}/json', { path });
  await lifeCases(api, path, name);
  await streamCases(api, path);
  await fileCases(api, path);
  await api.call('GET /containers/json', {
    query: { all: '1', size: '1', filters: '{"label":["contract"]}' },
  });
  await api.call('GET /containers/json', { query: { filters: '{"no-such":["x"]}' }, status: 400 });
  await api.call('GET /containers/{id}/json', { path, query: { size: '1' } });
  await endCases(api, path, image);
}

async function lifeCases(api: ContractClient, path: string[], name: string): Promise<void> {
  const none = ['no-such-container'];
  await api.call('POST /containers/{id}/start', { path, status: 204 });
  await api.call('POST /containers/{id}/start', { path, status: 304 });
  for (const verb of [
    'start',
    'stop',
    'restart',
    'kill',
    'pause',
    'unpause',
    'wait',
    'resize?h=1&w=1',
    'update',
  ])
    await api.call(`POST /containers/{id}/${verb}`.replace(/\?.*/, ''), {
      path: none,
      ...(verb.startsWith('resize') && { query: { h: '1', w: '1' } }),
      ...(verb === 'update' && { body: {} }),
      status: 404,
    });
  for (const what of ['json', 'top', 'logs', 'stats', 'changes', 'export', 'attach/ws'])
    await api.call(`GET /containers/{id}/${what}`, {
      path: none,
      ...(what === 'logs' && { query: { stdout: '1' } }),
      status: 404,
    });
  await api.call('DELETE /containers/{id}', { path: none, status: 404 });
  await api.call('GET /containers/{id}/top', { path });
  await api.call('GET /containers/{id}/top', { path, query: { ps_args: 'aux' } });
  await api.call('GET /containers/{id}/stats', { path, query: { stream: '0', 'one-shot': '1' } });
  await api.call('GET /containers/{id}/stats', { path, first: true, lines: true });
  await api.call('POST /containers/{id}/pause', { path, status: 204 });
  await api.call('GET /containers/{id}/json', { path });
  await api.call('POST /containers/{id}/unpause', { path, status: 204 });
  await api.call('POST /containers/{id}/restart', { path, query: { t: '0' }, status: 204 });
  await api.call('POST /containers/{id}/update', { path, body: { CpuShares: 512 } });
  await api.call('POST /containers/{id}/rename', { path, query: { name: `${name}-new` }, status: 204 });
  await api.call('POST /containers/{id}/rename', { path: none, query: { name: 'x' }, status: 404 });
  await api.call('POST /containers/{id}/rename', { path, query: { name: `${name}-new` }, status: 400 });
}

async function streamCases(api: ContractClient, path: string[]): Promise<void> {
  await api.call('GET /containers/{id}/logs', { path, query: { stdout: '1', stderr: '1' } });
  await api.call('GET /containers/{id}/logs', { path, status: 400 });
  const attach = { path, query: { stream: '1', stdout: '1' } };
  await hijackCall(api, 'POST /containers/{id}/attach', attach);
  await api.call('POST /containers/{id}/attach', { path, query: { logs: '1', stdout: '1' } });
  await api.call('POST /containers/{id}/attach', { path: ['no-such-container'], status: 404 });
  await websocketCall(api, 'GET /containers/{id}/attach/ws', attach);
  await api.call('POST /containers/{id}/exec', { path, body: {}, status: 400 });
  await api.call('POST /containers/{id}/exec', {
    path: ['no-such-container'],
    body: { Cmd: ['true'] },
    status: 404,
  });
  const body = { Cmd: ['sleep', '1000'], AttachStdout: true, Tty: true };
  const made = await api.call('POST /containers/{id}/exec', { path, body, status: 201 });
  const exec = [made.json.Id as string];
  await api.call('GET /exec/{id}/json', { path: exec });
  await hijackCall(api, 'POST /exec/{id}/start', { path: exec, body: { Tty: true } });
  await api.call('POST /exec/{id}/resize', { path: exec, query: { h: '10', w: '20' } });
  await api.call('GET /exec/{id}/json', { path: exec });
  await api.call('POST /exec/{id}/start', { path: exec, body: {}, status: 409 });
  const none = { path: ['no-such-exec'], status: 404 };
  await api.call('GET /exec/{id}/json', none);
  await api.call('POST /exec/{id}/start', { ...none, body: {} });
  await api.call('POST /exec/{id}/resize', { ...none, query: { h: '1', w: '1' } });
  const detached = await api.call('POST /containers/{id}/exec', {
    path,
    body: { Cmd: ['true'] },
    status: 201,
  });
  await api.call('POST /exec/{id}/start', { path: [detached.json.Id], body: { Detach: true } });
}

async function fileCases(api: ContractClient, path: string[]): Promise<void> {
  const query = { path: '/tmp' };
  const archive = tarOf([file('note', 'text')]);
  await api.call('PUT /containers/{id}/archive', { path, query, body: archive });
  await api.call('HEAD /containers/{id}/archive', { path, query: { path: '/tmp/note' } });
  await api.call('GET /containers/{id}/archive', { path, query: { path: '/tmp/note' } });
  for (const method of ['HEAD', 'GET']) {
    await api.call(`${method} /containers/{id}/archive`, { path, query: { path: '/none' }, status: 404 });
    await api.call(`${method} /containers/{id}/archive`, { path, query: { path: '' }, status: 400 });
  }
  await api.call('PUT /containers/{id}/archive', {
    path,
    query: { path: '/none' },
    body: archive,
    status: 404,
  });
  await api.call('PUT /containers/{id}/archive', { path, query: { path: '' }, body: archive, status: 400 });
  await api.call('GET /containers/{id}/changes', { path });
  await api.call('GET /containers/{id}/export', { path, first: true });
}

async function endCases(api: ContractClient, path: string[], image: string): Promise<void> {
  await api.call('DELETE /containers/{id}', { path, status: 409 });
  await api.call('POST /containers/{id}/kill', { path, query: { signal: 'NOSUCH' }, status: 400 });
  await api.call('POST /containers/{id}/kill', { path, status: 204 });
  await api.call('POST /containers/{id}/wait', { path });
  await api.call('POST /containers/{id}/wait', { path, query: { condition: 'no-such' }, status: 400 });
  await api.call('POST /containers/{id}/kill', { path, status: 409 });
  await api.call('POST /containers/{id}/stop', { path, status: 304 });
  await api.call('POST /containers/{id}/pause', { path, status: 409 });
  await api.call('POST /containers/{id}/unpause', { path, status: 409 });
  await api.call('POST /containers/{id}/resize', { path, query: { h: '1', w: '1' }, status: 409 });
  await api.call('POST /containers/{id}/exec', { path, body: { Cmd: ['true'] }, status: 409 });
  await api.call('GET /containers/{id}/stats', { path, query: { stream: '0', 'one-shot': '1' } });
  await api.call('GET /containers/{id}/json', { path });
  await api.call('POST /containers/{id}/start', { path, status: 204 });
  await api.call('POST /containers/{id}/resize', { path, query: { h: '1', w: '1' } });
  await api.call('POST /containers/{id}/stop', { path, query: { t: '0' }, status: 204 });
  await api.call('DELETE /containers/{id}', { path, query: { v: '1' }, status: 204 });
  const other = await api.call('POST /containers/create', {
    body: { Image: image, Cmd: ['no-such-program'] },
    status: 201,
  });
  await api.call('POST /containers/{id}/start', { path: [other.json.Id], status: 400 });
  await api.call('POST /containers/prune', {});
  await api.call('POST /containers/prune', { query: { filters: '{"no-such":["x"]}' }, status: 400 });
}
