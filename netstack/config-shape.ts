/**
 * How a configuration is read strictly: a reader for each value, and an error that names the place of what does not fit. A key
 * that is not known is an error too.
 */
import { parseDocument } from 'yaml';
import { DrydockError, errorMessage } from '#common/errors';

/** An error of a configuration: where, and what is wrong there. */
export function invalid(path: string, what: string): DrydockError {
  return new DrydockError('ERR_NET_CONFIG_INVALID', `${path || 'The configuration'} ${what}.`);
}

/** Reads a value, or throws what is wrong at `path`. */
export type Reader<T> = (value: unknown, path: string) => T;

export const text: Reader<string> = (value, path) => {
  if (typeof value !== 'string') throw invalid(path, 'must be a text');
  return value;
};
export const bool: Reader<boolean> = (value, path) => {
  if (typeof value !== 'boolean') throw invalid(path, 'must be true or false');
  return value;
};
export const whole: Reader<number> = (value, path) => {
  if (!Number.isInteger(value)) throw invalid(path, 'must be a whole number');
  return value as number;
};
/** A port or range is a number or a text in YAML, as it comes. */
export const textOrNumber: Reader<string> = (value, path) =>
  typeof value === 'number' ? String(value) : text(value, path);
export const oneOf =
  <T extends string>(...values: readonly T[]): Reader<T> =>
  (value, path) => {
    if (!values.includes(value as T)) throw invalid(path, `must be one of ${values.join(', ')}`);
    return value as T;
  };
export const list =
  <T>(item: Reader<T>): Reader<T[]> =>
  (value, path) => {
    if (!Array.isArray(value)) throw invalid(path, 'must be a list');
    return value.map((element, index) => item(element, `${path}[${index}]`));
  };
export const textMap: Reader<Record<string, string>> = (value, path) => {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid(path, 'must be a mapping of texts');
  return Object.fromEntries(
    Object.entries(value).map(([key, element]) => [key, text(element, `${path}.${key}`)]),
  );
};

type Fields = Record<string, Reader<unknown>>;
type Shape<F extends Fields> = { [K in keyof F]?: ReturnType<F[K]> };

/** A mapping with these keys, all of them optional, and no others. */
export const mapping =
  <F extends Fields>(fields: F): Reader<Shape<F>> =>
  (value, path) => {
    if (value === null || value === undefined) return {};
    if (typeof value !== 'object' || Array.isArray(value)) throw invalid(path, 'must be a mapping');
    const result: Record<string, unknown> = {};
    for (const [key, element] of Object.entries(value)) {
      const at = path ? `${path}.${key}` : key;
      const reader = Object.hasOwn(fields, key) ? fields[key] : undefined;
      if (!reader) throw invalid(at, `is not known here. Known are: ${Object.keys(fields).join(', ')}`);
      if (element !== null) result[key] = reader(element, at);
    }
    return result as Shape<F>;
  };

/** Deeper than any configuration goes. The reader of YAML works by recursion, and V8 ends the process when it runs out of stack there. */
const NESTING_MAX = 100;

/** How deep a text nests at most: by brackets, or by what a line begins with. Brackets in texts count too. */
function nestingOf(content: string): number {
  let depth = 0;
  let deepest = 0;
  for (const bracket of content.match(/[[\]{}]/g) ?? []) {
    depth = bracket === '[' || bracket === '{' ? depth + 1 : Math.max(0, depth - 1);
    deepest = Math.max(deepest, depth);
  }
  for (const start of content.match(/^[ \t]*(?:[-?:][ \t]+)+/gm) ?? [])
    deepest = Math.max(deepest, start.replaceAll(/[ \t]/g, '').length);
  // A level of a block is a blank at least, and nobody indents by one.
  for (const indent of content.match(/^ +/gm) ?? []) deepest = Math.max(deepest, indent.length / 4);
  return deepest;
}

/**
 * The values of a YAML text; JSON is YAML.
 * @throws DrydockError ERR_NET_CONFIG_INVALID
 */
export function parseYaml(content: string): unknown {
  if (nestingOf(content) > NESTING_MAX)
    throw new DrydockError('ERR_NET_CONFIG_INVALID', 'The configuration nests too deeply to be one.');
  try {
    const document = parseDocument(content);
    // A warning is of a tag that is not known: something is meant that would not be.
    for (const fault of [...document.errors, ...document.warnings]) throw fault;
    return document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    throw new DrydockError('ERR_NET_CONFIG_INVALID', `The configuration is no YAML: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}
