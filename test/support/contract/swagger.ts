/** moby's api/swagger.yaml (Swagger 2.0) as a contract. */
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { parse } from 'yaml';
import type { Contract, Operation, Schema } from './contract.ts';

interface SwaggerOperation {
  responses: Record<string, { schema?: Schema }>;
}

interface SwaggerFile {
  info: { version: string };
  paths: Record<string, Record<string, SwaggerOperation>>;
  definitions: Record<string, Schema>;
}

const TYPES = new Set(['string', 'number', 'integer', 'boolean', 'array', 'object']);
const KEPT = ['enum', 'format', 'required', 'minimum', 'pattern', 'minItems', 'maxItems'];

/** Reads one file. */
export function swaggerContract(path: string): Contract {
  // Go's parser lets a quoted text go on in a line that is indented less than its key; YAML does not.
  const text = readFileSync(path, 'utf8').replaceAll(
    /^( *(?:- )?\w+: "(?:[^"\\\n]|\\.)*)((?:\n[^"\n]*)+")$/gm,
    (_, begin: string, rest: string) => begin + rest.replaceAll(/\n\s*/g, ' '),
  );
  const file = parse(text, { merge: true }) as SwaggerFile;
  const operations = new Map<string, Operation>();
  for (const [url, methods] of Object.entries(file.paths))
    for (const [method, operation] of Object.entries(methods)) {
      if (method === 'parameters') continue;
      const responses = Object.entries(operation.responses).map(
        ([status, { schema }]) => [Number(status), schema && closed(schema)] as const,
      );
      operations.set(`${method.toUpperCase()} ${url}`, { responses: new Map(responses) });
    }
  const definitions: Record<string, Schema> = {};
  for (const [name, schema] of Object.entries(file.definitions)) {
    definitions[name] = opened(schema);
    definitions[`${name}!`] = closed(schema);
  }
  return { minor: Number(file.info.version.split('.')[1]), source: basename(path), operations, definitions };
}

/** The schema, for a value that is exactly this. */
function closed(schema: Schema): Schema {
  if (typeof schema.$ref === 'string')
    return nullable(schema, { $ref: `${schema.$ref.replace('#/definitions/', '#/$defs/')}!` });
  const made = opened(schema);
  // A schema that names no fields allows all.
  const namesFields = schema.properties !== undefined || schema.allOf !== undefined;
  return namesFields && schema.additionalProperties === undefined
    ? { ...made, unevaluatedProperties: false }
    : made;
}

/** The schema, for a value that may be more than this: a member of `allOf`. */
function opened(schema: Schema): Schema {
  if (typeof schema.$ref === 'string')
    return nullable(schema, { $ref: schema.$ref.replace('#/definitions/', '#/$defs/') });
  const made: Schema = {};
  for (const key of KEPT) if (schema[key] !== undefined) made[key] = schema[key];
  if (TYPES.has(schema.type as string)) made.type = schema.type;
  if (schema.properties)
    made.properties = Object.fromEntries(
      Object.entries(schema.properties).map(([name, property]) => [name, orNil(closed(property as Schema))]),
    );
  if (typeof schema.additionalProperties === 'object' && schema.additionalProperties !== null)
    made.additionalProperties = closed(schema.additionalProperties as Schema);
  if (schema.items) made.items = closed(schema.items as Schema);
  if (schema.allOf) made.allOf = (schema.allOf as Schema[]).map(opened);
  return nullable(schema, made);
}

/** A list or a map that Go has not made is null in its JSON, in every dockerd and for nearly every field: clients know it. */
function orNil(schema: Schema): Schema {
  const isEmptyable = schema.type === 'array' || schema.type === 'object';
  return isEmptyable ? { ...schema, type: [schema.type, 'null'] } : schema;
}

function nullable(schema: Schema, made: Schema): Schema {
  return schema['x-nullable'] === true ? { anyOf: [made, { type: 'null' }] } : made;
}
