/**
 * RUN --mount: what a step sees besides its image (docs.docker.com/reference/dockerfile, "RUN --mount"). Pure functions.
 */
import { posix } from 'node:path';
import { DrydockError } from '#common/errors';
import { goSize } from '../go-text.ts';

/** One --mount, checked. Paths are as they are written; numbers are parsed. */
export interface RunMount {
  type: 'bind' | 'cache' | 'tmpfs' | 'secret' | 'ssh';
  /** Where it is in the container; of a secret or an agent it may be left to the default. */
  target: string | undefined;
  /** Path in what it comes from. */
  source: string;
  /** A stage, an image or a named context; the build's own context when undefined. */
  from: string | undefined;
  readOnly: boolean;
  id: string | undefined;
  /** The environment variable of a secret. */
  env: string | undefined;
  required: boolean;
  sharing: 'shared' | 'private' | 'locked';
  sizeBytes: number | undefined;
  uid: number | undefined;
  gid: number | undefined;
  mode: number | undefined;
}

const TYPES = new Set(['bind', 'cache', 'tmpfs', 'secret', 'ssh']);
/** The options of each type; `type` is everybody's. */
const OPTIONS: Record<RunMount['type'], string[]> = {
  bind: ['target', 'source', 'from', 'readonly'],
  cache: ['target', 'source', 'from', 'readonly', 'id', 'sharing', 'uid', 'gid', 'mode'],
  tmpfs: ['target', 'size'],
  secret: ['target', 'id', 'required', 'env', 'uid', 'gid', 'mode'],
  ssh: ['target', 'id', 'required', 'uid', 'gid', 'mode'],
};
const ALIASES: Record<string, string> = {
  src: 'source',
  dst: 'target',
  destination: 'target',
  ro: 'readonly',
};
/** Written without a value they are true; `rw` is the opposite of `readonly`. */
const BOOLEANS = new Set(['readonly', 'readwrite', 'rw', 'required']);

const bad = (text: string): DrydockError => new DrydockError('ERR_BAD_DOCKERFILE', text);

function pairsOf(flag: string): Map<string, string> {
  const pairs = new Map<string, string>();
  for (const field of flag.split(',')) {
    const equals = field.indexOf('=');
    const key = (equals < 0 ? field : field.slice(0, equals)).toLowerCase();
    const name = ALIASES[key] ?? key;
    if (equals < 0 && !BOOLEANS.has(name)) throw bad(`invalid field '${field}' must be a key=value pair`);
    const value = equals < 0 ? 'true' : unquoted(field.slice(equals + 1));
    if (name === 'rw' || name === 'readwrite') pairs.set('readonly', value === 'true' ? 'false' : 'true');
    else pairs.set(name, value);
  }
  return pairs;
}

const unquoted = (text: string): string => /^"(.*)"$/.exec(text)?.[1] ?? text;

/** Parses the value of one --mount, whose variables are expanded. @throws ERR_BAD_DOCKERFILE in BuildKit's words */
export function parseMountFlag(flag: string): RunMount {
  const pairs = pairsOf(flag);
  const type = pairs.get('type') ?? 'bind';
  if (!TYPES.has(type)) throw bad(`unsupported mount type ${JSON.stringify(type)}`);
  const kind = type as RunMount['type'];
  for (const key of pairs.keys())
    if (key !== 'type' && !OPTIONS[kind].includes(key))
      throw bad(`unexpected key '${key}' for mount type '${kind}'`);
  const number = (key: string, base: 8 | 10): number | undefined => {
    const text = pairs.get(key);
    if (text === undefined) return undefined;
    if (!(base === 8 ? /^[0-7]+$/ : /^\d+$/).test(text)) throw bad(`invalid value ${text} for ${key}`);
    return Number.parseInt(text, base);
  };
  const boolean = (key: string, fallback: boolean): boolean => {
    const text = pairs.get(key)?.toLowerCase();
    if (text === undefined) return fallback;
    if (!['true', 'false', '1', '0'].includes(text)) throw bad(`invalid value for ${key}: ${text}`);
    return text === 'true' || text === '1';
  };
  const sharing = pairs.get('sharing') ?? 'shared';
  if (!['shared', 'private', 'locked'].includes(sharing))
    throw bad(`unsupported sharing value ${JSON.stringify(sharing)}`);
  const target = pairs.get('target');
  if (target === undefined && ['bind', 'cache', 'tmpfs'].includes(kind))
    throw bad(`target is required for mount type "${kind}"`);
  return {
    type: kind,
    target,
    source: pairs.get('source') ?? '/',
    from: pairs.get('from') || undefined,
    readOnly: boolean('readonly', kind === 'bind'),
    id: pairs.get('id'),
    env: pairs.get('env'),
    required: boolean('required', false),
    sharing: sharing as RunMount['sharing'],
    sizeBytes: sizeOf(pairs.get('size')),
    uid: number('uid', 10),
    gid: number('gid', 10),
    mode: number('mode', 8),
  };
}

function sizeOf(text: string | undefined): number | undefined {
  const bytes = text === undefined ? undefined : goSize(text);
  if (text !== undefined && bytes === undefined) throw bad(`invalid size: ${JSON.stringify(text)}`);
  return bytes;
}

/** Where a mount is in the container: a relative target is below the working folder. */
export function mountTarget(mount: RunMount, workdir: string): string {
  const fallback = (): string =>
    mount.type === 'ssh' ? '/run/buildkit/ssh_agent' : `/run/secrets/${secretName(mount)}`;
  const target = posix.resolve(workdir || '/', mount.target ?? fallback());
  if (target === '/')
    throw bad(`invalid mount target ${JSON.stringify(mount.target)}: it is the root itself`);
  return target;
}

/** The id of a secret, which may be left to its target's name. */
export function secretName({ id, target, env }: RunMount): string {
  const name = id ?? (target === undefined ? env : posix.basename(target));
  if (!name) throw bad('id, target or env is required for mount type "secret"');
  return name;
}
