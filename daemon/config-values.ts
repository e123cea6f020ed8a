/** How an option's value is written: in daemon.json and on the command line. Pure. */
import { isIP, isIPv4 } from 'node:net';
import { DrydockError } from '#common/errors';
import { gcRules } from './build/garbage-rules.ts';
import { goBool, goSize } from './go-text.ts';

/** An OCI runtime: a path, or a name in PATH, and what comes before its subcommand. */
export interface RuntimeProgram {
  path: string;
  runtimeArgs?: string[];
}

/** A limit of setrlimit(2) by docker's name; -1 is none. */
export interface Ulimit {
  Name: string;
  Soft: number;
  Hard: number;
}

/** Subnets of `/size` are cut from `base`. */
export interface AddressPool {
  base: string;
  size: number;
}

/** Kinds of values; each is one shape in daemon.json and one on the command line. */
export type ValueKind =
  | 'text'
  | 'flag'
  | 'number'
  | 'size'
  | 'list'
  | 'map'
  | 'switches'
  | 'programs'
  | 'ulimits'
  | 'pools'
  | 'driver-options'
  | 'garbage-rules';

interface Reader {
  /** What daemon.json must hold, for the message. */
  wanted: string;
  /** The value of daemon.json, or undefined when it has another shape. */
  fromFile(value: unknown): unknown;
  /** The value after one more flag; `before` is what the flags before it gave. @throws ERR_BAD_CONFIG */
  fromFlag(text: string, before: unknown): unknown;
}

function invalid(message: string): DrydockError {
  return new DrydockError('ERR_BAD_CONFIG', message);
}

type Fields = Record<string, unknown>;

const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** All of an object's fields by `read`, or undefined when one of them doesn't fit. */
function eachField(value: unknown, read: (value: unknown, name: string) => unknown): Fields | undefined {
  if (!isFields(value)) return undefined;
  const fields = Object.entries(value).map(([name, field]) => [name, read(field, name)] as const);
  return fields.some(([, field]) => field === undefined) ? undefined : Object.fromEntries(fields);
}

const text = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);
const flag = (value: unknown): boolean | undefined => (typeof value === 'boolean' ? value : undefined);
const whole = (value: unknown): number | undefined =>
  Number.isInteger(value) ? (value as number) : undefined;

/** `name=value`, the value possibly empty. */
function pair(written: string): [string, string] {
  const at = written.indexOf('=');
  return at < 0 ? [written, ''] : [written.slice(0, at), written.slice(at + 1)];
}

function added(before: unknown, name: string, value: unknown): Fields {
  return { ...(before as Fields | undefined), [name]: value };
}

/** As Go's flags read it. */
function parseBool(written: string): boolean {
  const value = goBool(written);
  if (value === undefined) throw invalid(`${JSON.stringify(written)} is neither true nor false`);
  return value;
}

function program(value: unknown, name: string): RuntimeProgram | undefined {
  if (!isFields(value) || typeof value.path !== 'string') return undefined;
  const others = Object.keys(value).filter((field) => field !== 'path' && field !== 'runtimeArgs');
  if (others.length > 0)
    throw invalid(`runtimes: ${name}: ${others.join(', ')} is not supported, only path and runtimeArgs`);
  const args = value.runtimeArgs ?? [];
  if (!Array.isArray(args) || !args.every((arg) => typeof arg === 'string')) return undefined;
  return { path: value.path, ...(args.length > 0 && { runtimeArgs: args }) };
}

function ulimit(value: unknown, name: string): Ulimit | undefined {
  if (!isFields(value)) return undefined;
  const soft = whole(value.Soft ?? value.Hard);
  const hard = whole(value.Hard ?? value.Soft);
  return soft === undefined || hard === undefined ? undefined : { Name: name, Soft: soft, Hard: hard };
}

/** `nofile=1024:2048`, or one number for both. */
function parseUlimit(written: string): Ulimit {
  const match = /^(\w+)=(-?\d+)(?::(-?\d+))?$/.exec(written);
  if (!match) throw invalid(`invalid ulimit argument: ${written}: write name=soft:hard`);
  return { Name: match[1]!, Soft: Number(match[2]), Hard: Number(match[3] ?? match[2]) };
}

function pool(value: unknown): AddressPool | undefined {
  if (!isFields(value)) return undefined;
  const { base, size } = value;
  if (typeof base !== 'string' || whole(size) === undefined) return undefined;
  const [address = '', bits = ''] = base.split('/');
  const longest = isIPv4(address) ? 30 : 96;
  if (isIP(address) === 0 || !/^\d+$/.test(bits) || Number(bits) > Number(size) || Number(size) > longest)
    throw invalid(
      `invalid address pool ${base} of /${String(size)}: write a subnet, and a size between its own and /${longest}`,
    );
  return { base, size: size as number };
}

const READERS: Readonly<Record<ValueKind, Reader>> = {
  text: { wanted: 'a string', fromFile: text, fromFlag: (written) => written },
  flag: { wanted: 'true or false', fromFile: flag, fromFlag: parseBool },
  number: {
    wanted: 'a number',
    fromFile: whole,
    fromFlag(written) {
      if (!/^\d+$/.test(written)) throw invalid(`${written} is not a number`);
      return Number(written);
    },
  },
  size: {
    wanted: 'a number of bytes, or a size such as 64M',
    fromFile: (value) => (typeof value === 'string' ? goSize(value) : whole(value)),
    fromFlag(written) {
      const bytes = goSize(written);
      if (bytes === undefined) throw invalid(`invalid size: '${written}'`);
      return bytes;
    },
  },
  list: {
    wanted: 'a list of strings',
    fromFile: (value) =>
      Array.isArray(value) && value.every((item) => typeof item === 'string') ? value : undefined,
    fromFlag: (written, before) => [...((before as string[] | undefined) ?? []), written],
  },
  map: {
    wanted: 'an object of strings',
    fromFile: (value) => eachField(value, text),
    fromFlag: (written, before) => added(before, ...pair(written)),
  },
  switches: {
    wanted: 'an object of true and false',
    fromFile: (value) => eachField(value, flag),
    fromFlag(written, before) {
      const [name, value] = pair(written);
      return added(before, name, value === '' ? true : parseBool(value));
    },
  },
  programs: {
    wanted: 'an object of objects with a path',
    fromFile: (value) => eachField(value, program),
    fromFlag(written, before) {
      const [name, path] = pair(written);
      return added(before, name, { path });
    },
  },
  ulimits: {
    wanted: 'an object of objects with Name, Soft and Hard',
    fromFile: (value) => eachField(value, ulimit),
    fromFlag(written, before) {
      const limit = parseUlimit(written);
      return added(before, limit.Name, limit);
    },
  },
  pools: {
    wanted: 'a list of objects with base and size',
    fromFile(value) {
      const pools = Array.isArray(value) ? value.map(pool) : [undefined];
      return pools.includes(undefined) ? undefined : pools;
    },
    fromFlag(written, before) {
      const fields = Object.fromEntries(written.split(',').map(pair));
      const made = pool({ base: fields.base, size: Number(fields.size) });
      if (!made) throw invalid(`invalid address pool ${written}: write base=SUBNET,size=PREFIX`);
      return [...((before as AddressPool[] | undefined) ?? []), made];
    },
  },
  'driver-options': {
    wanted: 'an object of objects of strings',
    fromFile: (value) => eachField(value, (options) => eachField(options, text)),
    fromFlag(written, before) {
      const [driver, option] = pair(written);
      const [name, value] = pair(option);
      const drivers = before as Record<string, Fields> | undefined;
      return added(drivers, driver, added(drivers?.[driver], name, value));
    },
  },
  'garbage-rules': {
    wanted: 'an object',
    fromFile: gcRules,
    fromFlag: () => {
      throw invalid('only daemon.json can hold this');
    },
  },
};

/** Reads a value of daemon.json. @throws ERR_BAD_CONFIG naming the key and what it must hold */
export function valueOfFile(kind: ValueKind, key: string, value: unknown): unknown {
  const read = READERS[kind].fromFile(value);
  if (read === undefined) throw invalid(`${key} must be ${READERS[kind].wanted}`);
  return read;
}

/** Reads one flag. @throws ERR_BAD_CONFIG naming the flag */
export function valueOfFlag(kind: ValueKind, flags: string, written: string, before: unknown): unknown {
  try {
    return READERS[kind].fromFlag(written, before);
  } catch (error) {
    throw error instanceof DrydockError ? invalid(`${flags}: ${error.message}`) : error;
  }
}
