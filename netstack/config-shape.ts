/**
 * How a configuration is read strictly: a reader for each value, and an error that names the place of what does not fit. A key
 * that is not known is an error too.
 */
import { parse } from 'yaml';
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

/**
 * The values of a YAML text; JSON is YAML.
 * @throws DrydockError ERR_NET_CONFIG_INVALID
 */
export function parseYaml(content: string): unknown {
  try {
    return parse(content, { maxAliasCount: 100 });
  } catch (error) {
    throw new DrydockError('ERR_NET_CONFIG_INVALID', `The configuration is no YAML: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}
