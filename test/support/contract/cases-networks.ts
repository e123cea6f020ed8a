/** Calls on networks and volumes. */
import { type ContractClient, REFUSED_FILTER } from './client.ts';

export async function networkCases(api: ContractClient, image: string): Promise<void> {
  const none = ['no-such-network'];
  const name = `contract-${api.minor}`;
  const create = 'POST /networks/create';
  const body = {
    Name: name,
    Driver: 'bridge',
    CheckDuplicate: true,
    Labels: { contract: 'yes' },
    Options: { 'com.docker.network.driver.mtu': '1400' },
    IPAM: { Config: [{ Subnet: '10.213.0.0/24', Gateway: '10.213.0.1' }] },
  };
  const made = await api.call(create, { body, status: 201 });
  await api.call(create, { body: { Name: name, CheckDuplicate: true }, status: 409 });
  await api.call(create, { body: {}, status: 400 });
  await api.call(create, { body: { Name: 'bridge' }, status: 403 });
  await api.call(create, { body: { Name: 'x', Driver: 'no-such' }, status: 404 });
  const path = [made.json.Id as string];
  const created = await api.call('POST /containers/create', {
    body: { Image: image, Cmd: ['sleep', '1000'], StopSignal: 'SIGKILL' },
    status: 201,
  });
  const id = created.json.Id as string;
  await api.call('POST /containers/{id}/start', { path: [id], status: 204 });
  const connect = {
    Container: id,
    EndpointConfig: { Aliases: ['friend'], IPAMConfig: { IPv4Address: '10.213.0.9' } },
  };
  await api.call('POST /networks/{id}/connect', { path, body: connect });
  await api.call('POST /networks/{id}/connect', { path: none, body: { Container: id }, status: 404 });
  await api.call('POST /networks/{id}/connect', { path, body: { Container: 'none' }, status: 404 });
  await api.call('GET /networks', {});
  await api.call('GET /networks', { query: REFUSED_FILTER, status: 400 });
  await api.call('GET /networks/{id}', { path, query: { verbose: '1' } });
  await api.call('GET /networks/{id}', { path: ['bridge'] });
  await api.call('GET /networks/{id}', { path: none, status: 404 });
  await api.call('GET /containers/{id}/json', { path: [id] });
  await api.call('DELETE /networks/{id}', { path, status: 403 });
  await api.call('POST /networks/{id}/disconnect', { path, body: { Container: id } });
  await api.call('POST /networks/{id}/disconnect', { path: none, body: { Container: id }, status: 404 });
  await api.call('DELETE /containers/{id}', { path: [id], query: { force: '1' }, status: 204 });
  await api.call('DELETE /networks/{id}', { path, status: 204 });
  await api.call('DELETE /networks/{id}', { path: none, status: 404 });
  await api.call('DELETE /networks/{id}', { path: ['bridge'], status: 403 });
  await api.call('POST /networks/prune', { query: { filters: '{"label":["contract=none"]}' } });
  await api.call('POST /networks/prune', { query: REFUSED_FILTER, status: 400 });
}

export async function volumeCases(api: ContractClient): Promise<void> {
  const name = `contract-${api.minor}`;
  const none = ['no-such-volume'];
  const create = 'POST /volumes/create';
  await api.call(create, { body: { Name: name, Labels: { contract: 'yes' } }, status: 201 });
  await api.call(create, { body: { Name: '!' }, status: 400 });
  await api.call(create, { body: { Name: 'x', Driver: 'no-such' }, status: 404 });
  await api.call('GET /volumes', {});
  await api.call('GET /volumes', { query: REFUSED_FILTER, status: 400 });
  await api.call('GET /volumes/{name}', { path: [name] });
  await api.call('GET /volumes/{name}', { path: none, status: 404 });
  if (api.minor >= 42)
    await api.call('PUT /volumes/{name}', { path: [name], query: { version: '1' }, body: {}, status: 503 });
  await api.call('DELETE /volumes/{name}', { path: [name], status: 204 });
  await api.call('DELETE /volumes/{name}', { path: none, status: 404 });
  await api.call('POST /volumes/prune', { query: { filters: '{"label":["contract=none"]}' } });
  await api.call('POST /volumes/prune', { query: REFUSED_FILTER, status: 400 });
}
