/** Calls on images and builds. */
import { file, tarOf } from '../images.ts';
import type { TestRegistry } from '../registry.ts';
import { type ContractClient, REFUSED_FILTER } from './client.ts';

/** Images and builds; `registry` takes pushes and gives pulls. */
export async function imageCases(api: ContractClient, image: string, registry: TestRegistry): Promise<void> {
  const none = ['no/such-image'];
  const repository = `${registry.domain}/contract`;
  const tag = `v${api.minor}`;
  const path = [`${repository}:${tag}`];
  const context = tarOf([
    file('Dockerfile', 'FROM scratch\nCOPY note /note\nLABEL contract=yes\nCMD ["/note"]\n'),
    file('note', tag),
  ]);
  await api.call('POST /build', { query: { t: path[0]! }, body: context, lines: true });
  await api.call('POST /build', { query: { buildargs: '{' }, body: context, status: 400 });
  await api.call('GET /images/{name}/json', { path });
  await api.call('GET /images/{name}/json', { path: none, status: 404 });
  await api.call('GET /images/{name}/history', { path });
  await api.call('GET /images/{name}/history', { path: none, status: 404 });
  await api.call('POST /images/{name}/tag', { path, query: { repo: 'contract-tag', tag }, status: 201 });
  await api.call('POST /images/{name}/tag', { path, query: { repo: '!' }, status: 400 });
  await api.call('POST /images/{name}/tag', { path: none, query: { repo: 'x' }, status: 404 });
  const headers = { 'X-Registry-Auth': Buffer.from('{}').toString('base64url') };
  await api.call('POST /images/{name}/push', { path: [repository], query: { tag }, headers, lines: true });
  await api.call('GET /distribution/{name}/json', { path });
  await api.call('GET /distribution/{name}/json', { path: [`${registry.domain}/none:x`], status: 404 });
  await api.call('GET /images/{name}/get', { path });
  const saved = await api.call('GET /images/get', { query: { names: path[0]! } });
  await api.call('GET /images/{name}/get', { path: none, status: 404 });
  await api.call('POST /images/load', { body: saved.body, lines: true });
  await api.call('GET /images/json', { query: { all: '1', digests: '1', 'shared-size': '1' } });
  await api.call('GET /images/json', { query: REFUSED_FILTER, status: 400 });
  await api.call('DELETE /images/{name}', { path: [`contract-tag:${tag}`] });
  await api.call('DELETE /images/{name}', { path, query: { force: '1' } });
  await api.call('DELETE /images/{name}', { path: none, status: 404 });
  await api.call('POST /images/create', { query: { fromImage: repository, tag }, lines: true });
  await api.call('POST /images/create', { query: { fromImage: repository, tag: 'none' }, status: 404 });
  await api.call('POST /images/create', {
    query: { fromSrc: '-', repo: 'contract-import' },
    body: context,
    lines: true,
  });
  await api.call('GET /images/search', { query: { term: 'x' }, status: 501 });
  await api.call('POST /images/prune', { query: { filters: '{"label":["contract=none"]}' } });
  await api.call('POST /images/prune', { query: REFUSED_FILTER, status: 400 });
  await api.call('POST /build/prune', {});
  await api.call('POST /auth', {
    body: { username: 'user', password: 'wrong', serveraddress: registry.domain },
  });
  await commitCases(api, image);
  for (const name of ['contract-import', path[0]!]) await api.call('DELETE /images/{name}', { path: [name] });
}

async function commitCases(api: ContractClient, image: string): Promise<void> {
  const made = await api.call('POST /containers/create', {
    body: { Image: image, Cmd: ['true'] },
    status: 201,
  });
  const container = made.json.Id as string;
  await api.call('POST /commit', {
    query: { container, repo: 'contract-commit' },
    body: { Env: ['A=b'] },
    status: 201,
  });
  await api.call('POST /commit', { query: { container: 'none' }, body: {}, status: 404 });
  await api.call('DELETE /images/{name}', { path: [image], status: 409 });
  await api.call('DELETE /images/{name}', { path: ['contract-commit'] });
  await api.call('DELETE /containers/{id}', { path: [container], status: 204 });
}
