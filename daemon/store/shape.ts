/**
 * What records on disk must look like for the services to work with them, in the part of JSON Schema that this needs. A record
 * of another shape was written by nobody: the disk, or somebody's editor, has changed it.
 */

/** A schema. Fields that it does not name are as they are. */
export interface Shape {
  type?: string | readonly string[];
  /** Of a text. */
  pattern?: string;
  /** Of an object. */
  required?: readonly string[];
  properties?: Readonly<Record<string, Shape>>;
  additionalProperties?: Shape;
  /** Of an array. */
  items?: Shape;
}

/** A text. */
export const TEXT: Shape = { type: 'string' };
/** Yes or no. */
export const FLAG: Shape = { type: 'boolean' };
/** Any number. */
export const NUMBER: Shape = { type: 'number' };
/** What each key has is a text. */
export const TEXTS_BY_KEY: Shape = { type: 'object', additionalProperties: TEXT };
/** As the daemon writes times: RFC 3339. */
export const TIME: Shape = {
  type: 'string',
  pattern: '^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?Z$',
};
/** sha256, with its name. */
export const DIGEST: Shape = { type: 'string', pattern: '^sha256:[0-9a-f]{64}$' };

/** An object with all of these fields, and perhaps those. */
export function record(required: Record<string, Shape>, optional: Record<string, Shape> = {}): Shape {
  return { type: 'object', required: Object.keys(required), properties: { ...required, ...optional } };
}

/** What is wrong with a value, and where; undefined when nothing is. */
export function misfit(value: unknown, shape: Shape, at = ''): string | undefined {
  const types = [shape.type ?? []].flat();
  const type = typeOf(value);
  if (types.length > 0 && !types.includes(type) && !(type === 'integer' && types.includes('number')))
    return `${at === '' ? 'it' : at} is ${type} instead of ${types.join(' or ')}`;
  if (typeof value === 'string' && shape.pattern !== undefined && !new RegExp(shape.pattern).test(value))
    return `${at} is not what it should be`;
  if (Array.isArray(value))
    return first(
      value.map((item, n) => [`${n}`, item, shape.items]),
      at,
    );
  if (value === null || typeof value !== 'object') return undefined;
  const missing = shape.required?.find((name) => !Object.hasOwn(value, name));
  if (missing !== undefined) return `${join(at, missing)} is missing`;
  const { properties, additionalProperties } = shape;
  return first(
    Object.entries(value).map(([name, item]) => [
      name,
      item,
      properties && Object.hasOwn(properties, name) ? properties[name] : additionalProperties,
    ]),
    at,
  );
}

function first(
  parts: [name: string, value: unknown, shape: Shape | undefined][],
  at: string,
): string | undefined {
  for (const [name, value, shape] of parts) {
    const found = shape && misfit(value, shape, join(at, name));
    if (found !== undefined) return found;
  }
  return undefined;
}

function join(at: string, name: string): string {
  return at === '' ? name : `${at}.${name}`;
}

function typeOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  return Number.isSafeInteger(value) ? 'integer' : typeof value;
}
