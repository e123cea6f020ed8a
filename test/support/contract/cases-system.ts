/** Calls on the system, and on what a node without swarm and plugins has not. */
import { tarOf } from '../images.ts';
import { type ContractClient, REFUSED_FILTER } from './client.ts';

export async function systemCases(api: ContractClient): Promise<void> {
  await api.call('GET /_ping', {});
  await api.call('HEAD /_ping', {});
  await api.call('GET /info', {});
  await api.call('GET /version', {});
  await api.call('GET /system/df', {});
  await api.call('GET /events', { query: { since: '0', until: String(Date.now() / 1000) }, lines: true });
  await api.call('GET /events', { query: { ...REFUSED_FILTER }, status: 400 });
  await api.call('POST /session', { status: 400 });
}

/** What a node that is in no swarm, without plugins, answers. */
export async function absentCases(api: ContractClient): Promise<void> {
  const path = ['x'];
  const absent = { path, status: 503 };
  for (const kind of ['nodes', 'services', 'tasks', 'secrets', 'configs']) {
    await api.call(`GET /${kind}`, { status: 503 });
    await api.call(`GET /${kind}/{id}`, absent);
    if (kind !== 'tasks') await api.call(`DELETE /${kind}/{id}`, absent);
    if (kind !== 'tasks')
      await api.call(`POST /${kind}/{id}/update`, { ...absent, query: { version: '1' }, body: {} });
    if (kind !== 'tasks' && kind !== 'nodes')
      await api.call(`POST /${kind}/create`, { body: {}, status: 503 });
  }
  for (const kind of ['services', 'tasks'])
    await api.call(`GET /${kind}/{id}/logs`, { ...absent, query: { stdout: '1' } });
  await api.call('GET /swarm', { status: 503 });
  await api.call('GET /swarm/unlockkey', { status: 503 });
  await api.call('POST /swarm/update', { query: { version: '1' }, body: {}, status: 503 });
  await api.call('POST /swarm/unlock', { body: { UnlockKey: 'x' }, status: 503 });
  await api.call('POST /swarm/leave', { status: 503 });
  for (const verb of ['init', 'join']) await api.call(`POST /swarm/${verb}`, { body: {}, status: 501 });
  await api.call('GET /plugins', {});
  await api.call('GET /plugins/privileges', { query: { remote: 'x' }, status: 501 });
  await api.call('POST /plugins/pull', { query: { remote: 'x' }, body: [], status: 501 });
  await api.call('POST /plugins/create', { query: { name: 'x' }, body: tarOf([]), status: 501 });
  await api.call('GET /plugins/{name}/json', { path, status: 404 });
  await api.call('DELETE /plugins/{name}', { path, status: 404 });
  for (const verb of ['enable', 'disable', 'upgrade', 'push', 'set'])
    await api.call(`POST /plugins/{name}/${verb}`, {
      path,
      query: { remote: 'x', timeout: '0' },
      body: [],
      status: 404,
    });
}
