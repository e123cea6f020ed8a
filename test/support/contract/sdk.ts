/**
 * The models of Docker's own SDK for Node as a contract. It generates them from moby's newest description, one TypeScript
 * interface a file, and that form is regular enough to be read without a compiler:
 * `Name?: Array<{ [key: string]: Other | null }>;`
 *
 * The SDK has no list of endpoints: those and their statuses come from a swagger file.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Contract, Operation, Schema } from './contract.ts';

/** What the answers of success are, in the SDK's types. */
const ANSWERS: Record<string, string> = {
  'DELETE /images/{name}': 'Array<ImageDeleteResponseItem>',
  'GET /containers/json': 'Array<ContainerSummary>',
  'GET /containers/{id}/changes': 'Array<FilesystemChange>',
  'GET /containers/{id}/json': 'ContainerInspectResponse',
  'GET /containers/{id}/stats': 'ContainerStatsResponse',
  'GET /containers/{id}/top': 'ContainerTopResponse',
  'GET /distribution/{name}/json': 'DistributionInspect',
  'GET /events': 'EventMessage',
  'GET /exec/{id}/json': 'ExecInspectResponse',
  'GET /images/json': 'Array<ImageSummary>',
  'GET /images/{name}/history': 'Array<HistoryResponseItem>',
  'GET /images/{name}/json': 'ImageInspect',
  'GET /info': 'SystemInfo',
  'GET /networks': 'Array<NetworkSummary>',
  'GET /networks/{id}': 'NetworkInspect',
  'GET /plugins': 'Array<Plugin>',
  'GET /system/df': 'SystemDataUsageResponse',
  'GET /version': 'SystemVersion',
  'GET /volumes': 'VolumeListResponse',
  'GET /volumes/{name}': 'Volume',
  'POST /auth': 'SystemAuthResponse',
  'POST /build/prune': 'BuildPruneResponse',
  'POST /commit': 'IDResponse',
  'POST /containers/create': 'ContainerCreateResponse',
  'POST /containers/prune': 'ContainerPruneResponse',
  'POST /containers/{id}/exec': 'IDResponse',
  'POST /containers/{id}/update': 'ContainerUpdateResponse',
  'POST /containers/{id}/wait': 'ContainerWaitResponse',
  'POST /images/prune': 'ImagePruneResponse',
  'POST /networks/create': 'NetworkCreateResponse',
  'POST /networks/prune': 'NetworkPruneResponse',
  'POST /volumes/create': 'Volume',
  'POST /volumes/prune': 'VolumePruneResponse',
};

/** Endpoints that came after `base`, with the statuses of their answers. */
const NEWER: Record<string, number[]> = { 'PUT /volumes/{name}': [200, 400, 404, 500, 503] };

/** The SDK's models over the endpoints of `base`, for version 1.`minor`. */
export function sdkContract(folder: string, base: Contract, minor: number): Contract {
  const operations = new Map<string, Operation>(base.operations);
  for (const [name, statuses] of Object.entries(NEWER))
    operations.set(name, { responses: new Map(statuses.map((status) => [status, undefined])) });
  for (const [name, type] of Object.entries(ANSWERS)) {
    const statuses = [...base.operations.get(name)!.responses.keys()];
    const schema = schemaOf(type);
    operations.set(name, {
      responses: new Map(statuses.map((status) => [status, status < 300 ? schema : undefined])),
    });
  }
  const definitions: Record<string, Schema> = { ...base.definitions };
  for (const file of readdirSync(folder).filter((name) => name.endsWith('.ts')))
    for (const [name, schema] of modelsIn(readFileSync(join(folder, file), 'utf8')))
      definitions[`sdk.${name}`] = schema;
  return { minor, source: '@docker/node-sdk', operations, definitions };
}

function* modelsIn(source: string): Generator<[string, Schema]> {
  const text = source.replaceAll(/\/\*[\s\S]*?\*\//g, '');
  for (const [, name, body] of text.matchAll(/^export interface (\w+) \{([\s\S]*?)^\}/gm)) {
    const fields = [...body!.matchAll(/^ {4}'?([^\s:?']+)'?(\??): ([\s\S]*?);$/gm)];
    yield [
      name!,
      {
        type: 'object',
        properties: Object.fromEntries(fields.map(([, field, , type]) => [field!, orNil(schemaOf(type!))])),
        required: fields.filter(([, , optional]) => optional === '').map(([, field]) => field!),
        unevaluatedProperties: false,
      },
    ];
  }
  for (const [, name, type] of text.matchAll(/^export type (\w+) =([\s\S]*?);$/gm))
    yield [name!, schemaOf(type!)];
}

/** As in the swagger files: what Go has not made is null. */
function orNil(schema: Schema): Schema {
  return schema.type === 'array' || schema.type === 'object'
    ? { ...schema, type: [schema.type, 'null'] }
    : schema;
}

const PRIMITIVES: Record<string, Schema> = {
  string: { type: 'string' },
  number: { type: 'number' },
  boolean: { type: 'boolean' },
  null: { type: 'null' },
  any: {},
  Date: { type: 'string' },
};

/** A type as the SDK writes it. @throws Error for a form that it has not used so far */
function schemaOf(text: string): Schema {
  const type = text.trim().replace(/^\|/, '').trim();
  const members = splitUnion(type);
  if (members.length > 1) return { anyOf: members.map(schemaOf) };
  const list = /^Array<([\s\S]+)>$/.exec(type) ?? /^([\s\S]+)\[\]$/.exec(type);
  if (list) return { type: 'array', items: schemaOf(list[1]!) };
  const map =
    /^\{\s*\[key: string\]: ([\s\S]+?);?\s*\}$/.exec(type) ?? /^Record<string, ([\s\S]+)>$/.exec(type);
  if (map) return { type: 'object', additionalProperties: orNil(schemaOf(map[1]!)) };
  const literal = /^'(.*)'$/.exec(type);
  if (literal) return { const: literal[1] };
  if (/^-?\d+$/.test(type)) return { const: Number(type) };
  if (PRIMITIVES[type]) return PRIMITIVES[type];
  if (/^\w+$/.test(type)) return { $ref: `#/$defs/sdk.${type}` };
  throw new Error(`the SDK has a type of an unknown form: ${type}`);
}

/** Splits at the bars that are in no bracket. */
function splitUnion(type: string): string[] {
  const members = [''];
  let depth = 0;
  for (const character of type) {
    if ('<{['.includes(character)) depth++;
    if ('>}]'.includes(character)) depth--;
    if (character === '|' && depth === 0) members.push('');
    else members[members.length - 1] += character;
  }
  return members;
}
