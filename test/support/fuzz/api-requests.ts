/**
 * Requests that nobody should send: for each route of the API a path, a query, headers and a body, each of them right, nearly
 * right, of another kind or noise. Bodies follow the schemas of the routes, so that most of them reach the code behind.
 */

import fc from 'fast-check';
import fastify, { type FastifyInstance } from 'fastify';
import { apiPlugins } from '../../../daemon/api/index.ts';
import type { ApiPlugin } from '../../../daemon/api/server.ts';
import { viewRoutes } from '../../../daemon/dashboard/routes.ts';

/** A request, as it goes over the wire. */
export interface FuzzRequest {
  method: string;
  /** Path and query. */
  target: string;
  headers: [name: string, value: string][];
  /** In Latin-1; undefined for none. */
  body: string | undefined;
}

/** A route of the API. */
export interface Route {
  method: string;
  url: string;
  /** JSON Schema of its body, where it has one. */
  body: Schema | undefined;
  /** The parameters that its handler reads itself. */
  parameters: string[];
}

interface Schema {
  type?: string | string[];
  properties?: Record<string, Schema>;
  additionalProperties?: Schema;
  items?: Schema;
}

/** The route table of the daemon, asked of the plugins themselves: a new route is attacked from its first day. */
export function apiRoutes(): Route[] {
  const routes: Route[] = [];
  const app = fastify({ exposeHeadRoutes: false });
  app.addHook('onRoute', ({ method, url, schema, handler }) => {
    const parameters = [...String(handler).matchAll(/\(request, ["']([\w-]+)["']/g)].map(([, name]) => name!);
    routes.push({ method: String(method), url, body: schema?.body as Schema | undefined, parameters });
  });
  // Handlers are never called: whatever a plugin takes out of the daemon while it registers them will do.
  const nothing: unknown = new Proxy(() => nothing, { get: () => nothing });
  for (const plugin of [viewRoutes, ...apiPlugins])
    (plugin as (app: FastifyInstance, context: unknown) => ReturnType<ApiPlugin>)(app, nothing);
  return routes;
}

/** Names of what is there, and of what could be taken for it. */
export interface Names {
  containers: readonly string[];
  images: readonly string[];
  networks: readonly string[];
  volumes: readonly string[];
  /** Paths that are outside of the data root, and must not be reached. */
  outside: readonly string[];
}

/** Every parameter that some route reads, or that dockerd knows. */
const PARAMETERS =
  'all author buildargs buildid cachefrom changes comment condition container copyUIDGID cpuperiod cpuquota cpusetcpus cpusetmems cpushares decode dangling detachKeys details digests dockerfile extrahosts filters force forcerm format fromImage fromSrc h id keep-storage labels limit link logs manifests memory memswap message name names networkmode noOverwriteDirNonDir nocache noprune one-shot outputs path pause platform platforms ps_args pull q quiet reference remote repo reserved-space rm scope session shared-size shmsize signal since size squash stderr stdin stdout t tag tail target term timestamps type ulimits until v verbose version w'.split(
    ' ',
  );

/** What has hurt parsers: of paths, numbers, JSON, terminals, and of JavaScript. */
const HOSTILE_TEXTS = [
  '',
  ' ',
  '.',
  '..',
  '/',
  '\0',
  'a\0b',
  '\u001b[2J\u001b]0;x\u0007',
  '\u009b2J',
  '\r\nX-Smuggled: 1',
  '__proto__',
  'constructor',
  'toString',
  'hasOwnProperty',
  '-1',
  '0',
  '1',
  '1e400',
  '9223372036854775808',
  '0x10',
  'NaN',
  'null',
  'true',
  '{}',
  '[]',
  '{"',
  '{"__proto__":{"x":["y"]}}',
  '{"label":["a=b"]}',
  '{"label":{"a":true}}',
  '{"name":["["]}',
  '{"name":["(a+)+$"]}',
  '{"until":["1x"]}',
  '{"type":["container"]}',
  'sha256:',
  `sha256:${'0'.repeat(64)}`,
  '0'.repeat(64),
  'a'.repeat(300),
  '日本',
  '\ud800',
  'a b',
  'a:b:c:d',
  'a=b',
  '=',
  '%',
  '%zz',
  'a@b',
  '127.0.0.1',
  '::1',
  '127.0.0.1:1/x:y',
  'localhost:1/x@sha256:y',
  '10.0.0.0/8',
  '10.0.0.0/99',
  '80/tcp',
  '1-65535/udp',
  '99999',
  'container:',
  'container:x',
  'no',
  'always',
  'on-failure',
  'host',
  'none',
  'bridge',
  'private',
  'default',
  'volume',
  'bind',
  'tmpfs',
  'image',
  'json-file',
  'local',
  'overlay',
  'SIGKILL',
  'KILL',
  '9',
  'root',
  '0:0',
  'ctrl-p,ctrl-q',
  'sh',
  'true',
  'ALL',
  'CAP_CHOWN',
  'no-new-privileges',
  'seccomp={}',
  'apparmor=x',
  'next-exit',
  'removed',
  '5m',
  '1700000000.5',
  '2024-01-01T00:00:00Z',
] as const;

const WRONG_VALUES = [
  null,
  true,
  false,
  0,
  -1,
  1.5,
  2 ** 53,
  1e308,
  '',
  'x',
  [],
  {},
  [[]],
  [null],
  { x: null },
];
const CONTENT_TYPES = [
  'application/json',
  'application/json',
  'application/json',
  'application/json; charset=utf-8',
  'application/x-tar',
  'text/plain',
  'multipart/form-data; boundary=x',
  '',
  'application/json;;;',
];
const HEADERS: [string, string[]][] = [
  ['X-Registry-Auth', ['', 'e30=', '!!', Buffer.from('{"username":1}').toString('base64'), 'bnVsbA==']],
  ['X-Registry-Config', ['', 'e30=', 'W10=', '%%']],
  ['Upgrade', ['tcp', 'h2c', 'websocket', '']],
  ['Connection', ['Upgrade', 'close', 'keep-alive, Upgrade']],
  ['Expect', ['100-continue', '200-maybe']],
  ['Range', ['bytes=0-1', 'bytes=-', 'x']],
  ['Accept', ['application/vnd.docker.multiplexed-stream', '*/*', 'x']],
  ['If-None-Match', ['*']],
  ['Content-Encoding', ['gzip', 'zstd', 'x']],
  ['Transfer-Encoding', ['chunked', 'gzip', 'identity']],
  ['Content-Length', ['0', '1', '99', '-1', 'x', '99999999999999999999']],
  ['Origin', ['http://evil.example', 'null']],
  ['X-Docker-Container-Path-Stat', ['x']],
  ['Cookie', ['a'.repeat(9000)]],
];
const VERSIONS = ['', '', '', '/v1.24', '/v1.41', '/v1.51', '/v1.99', '/v0', '/v1..', '/v'];
const PREFIX_BYTES_MAX = 1024;

function hostileTexts(names: Names): fc.Arbitrary<string> {
  const { containers, images, networks, volumes, outside } = names;
  const climbs = outside.flatMap((path) => [`${'../'.repeat(20)}${path.slice(1)}`, `/a/..${path}`]);
  return fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom(...containers, ...images, ...networks, ...volumes) },
    { weight: 3, arbitrary: fc.constantFrom(...HOSTILE_TEXTS) },
    { weight: 1, arbitrary: fc.constantFrom(...climbs) },
    { weight: 1, arbitrary: fc.string({ unit: 'binary', maxLength: 12 }).map(withoutRoot) },
  );
}

/** A bind mount makes the folder that it names, as dockerd's does: no name that was thrown may be one of the host's. */
function withoutRoot(text: string): string {
  return text.replaceAll('/', '|');
}

/** A value of a schema, mostly. */
function ofSchema(schema: Schema, text: fc.Arbitrary<string>): fc.Arbitrary<unknown> {
  const right = rightValue(schema, text);
  return fc.oneof(
    { weight: 12, arbitrary: right },
    { weight: 1, arbitrary: fc.constantFrom(...WRONG_VALUES) },
  );
}

function rightValue(schema: Schema, text: fc.Arbitrary<string>): fc.Arbitrary<unknown> {
  const { properties, additionalProperties, items } = schema;
  if (properties) {
    const fields = Object.entries(properties).map(([name, of]) =>
      fc.tuple(fc.constant(name), fc.constant(of)),
    );
    // A few fields at a time: with all of them some is always refused, and what follows is never reached.
    return fc
      .uniqueArray(fc.oneof(...fields), { maxLength: 5, selector: ([name]) => name })
      .chain((chosen) =>
        fc.record(Object.fromEntries(chosen.map(([name, of]) => [name, ofSchema(of, text)]))),
      );
  }
  if (additionalProperties) return fc.dictionary(text, ofSchema(additionalProperties, text), { maxKeys: 2 });
  const types = [schema.type ?? []].flat();
  if (types.includes('array') && items) return fc.array(ofSchema(items, text), { maxLength: 3 });
  if (types.includes('integer'))
    return fc.oneof(fc.constantFrom(0, 1, -1, 10, 4 << 20, 64 << 20, 2 ** 53 - 1), fc.integer());
  if (types.includes('boolean')) return fc.boolean();
  if (types.includes('string')) return text;
  return fc.constantFrom({}, { x: 'y' });
}

/** Bodies of a route: of its schema, JSON of any shape, or bytes. */
function bodies(
  route: Route,
  text: fc.Arbitrary<string>,
  required: object,
): fc.Arbitrary<string | undefined> {
  const json = fc.oneof(
    { weight: 6, arbitrary: ofSchema(route.body ?? {}, text) },
    { weight: 1, arbitrary: fc.jsonValue() },
  );
  return fc.oneof(
    { weight: route.body ? 1 : 4, arbitrary: fc.constant(undefined) },
    {
      weight: route.body ? 10 : 2,
      arbitrary: fc
        .tuple(json, fc.boolean())
        .map(([value, complete]) =>
          JSON.stringify(complete && isObject(value) ? { ...required, ...value } : value),
        )
        .map((text) => Buffer.from(text).toString('latin1')),
    },
    {
      weight: 1,
      arbitrary: fc
        .uint8Array({ maxLength: PREFIX_BYTES_MAX })
        .map((bytes) => Buffer.from(bytes).toString('latin1')),
    },
  );
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function headers(hasBody: boolean): fc.Arbitrary<[string, string][]> {
  const one = fc.oneof(
    ...HEADERS.map(([name, values]) => fc.tuple(fc.constant(name), fc.constantFrom(...values))),
  );
  const type = fc.constantFrom(...CONTENT_TYPES).map((value): [string, string] => ['Content-Type', value]);
  return fc
    .tuple(
      hasBody ? type.map((pair) => [pair]) : fc.constant([]),
      fc.oneof({ weight: 3, arbitrary: fc.constant([]) }, fc.array(one, { maxLength: 2 })),
    )
    .map(([first, more]) => [...first, ...more]);
}

/** Requests to one route. */
function requestsTo(route: Route, names: Names): fc.Arbitrary<FuzzRequest> {
  const text = hostileTexts(names);
  // Nobody should mount the whole machine into what is being attacked.
  const inBody = text.filter((value) => value !== '/');
  const own = ownNames(route.url, names);
  const parameter = fc
    .oneof({ weight: 3, arbitrary: fc.constantFrom(...own) }, text)
    .map(encodeURIComponentAnyway);
  const path = fc
    .array(parameter, { minLength: 3, maxLength: 3 })
    .map((values) => route.url.replace(/:\w+|\*/g, () => values.shift() ?? ''));
  const known = route.parameters.length > 0 ? route.parameters : PARAMETERS;
  const name = fc.oneof(
    { weight: 4, arbitrary: fc.constantFrom(...known) },
    { weight: 1, arbitrary: fc.constantFrom(...PARAMETERS) },
  );
  const query = fc
    .array(fc.tuple(name, text), { maxLength: 4 })
    .map((pairs) => pairs.map(([name, value]) => `${name}=${encodeURIComponentAnyway(value)}`).join('&'));
  // What a body must have to be looked at further.
  const required =
    route.url === '/containers/create'
      ? { Image: names.images[0], Cmd: ['true'] }
      : { Name: 'fuzz', Cmd: ['true'] };
  return fc
    .tuple(fc.constantFrom(...VERSIONS), path, query, bodies(route, inBody, required))
    .chain(([version, where, asked, body]) =>
      headers(body !== undefined).map((lines) => ({
        method: route.method,
        target: `${version}${where}${asked === '' ? '' : `?${asked}`}`,
        headers: lines,
        body,
      })),
    );
}

function ownNames(url: string, names: Names): readonly string[] {
  const kind = url.split('/')[1];
  if (kind === 'images' || kind === 'distribution') return names.images;
  if (kind === 'networks') return names.networks;
  if (kind === 'volumes') return names.volumes;
  return names.containers;
}

/** Half a surrogate pair has no encoding of its own. */
function encodeURIComponentAnyway(text: string): string {
  return encodeURIComponent(Buffer.from(text).toString());
}

/** Resources that this daemon only says it has not. */
const ABSENT = /^\/(services|tasks|nodes|secrets|configs|swarm|plugins)\b/;

/** Requests to all routes: often to those that take much in. */
export function apiRequests(names: Names): fc.Arbitrary<FuzzRequest> {
  return fc.oneof(
    ...apiRoutes().map((route) => ({
      weight: ABSENT.test(route.url) ? 1 : route.body ? 30 : 8,
      arbitrary: requestsTo(route, names),
    })),
  );
}
