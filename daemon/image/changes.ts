/**
 * Dockerfile instructions that only change an image's configuration (CMD, ENV, EXPOSE and the like): their arguments
 * parsed as docker's builder does (moby, frontend/dockerfile/parser/line_parsers.go), applied to a configuration.
 * `docker import --change`, `docker commit --change` and the builder share them. Pure functions.
 */
import { DrydockError } from '#common/errors';
import type { ImageConfig } from './store.ts';

function bad(instruction: string, reason: string): DrydockError {
  return new DrydockError('ERR_BAD_DOCKERFILE', `${instruction} ${reason}`);
}

/** A list of strings in JSON, or undefined when the text is none and thus a shell command. */
export function parseJsonForm(text: string): string[] | undefined {
  if (!text.trimStart().startsWith('[')) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    return Array.isArray(value) && value.every((item) => typeof item === 'string') ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Splits at blanks outside of quotes and after escapes, keeping both: `a="b c" d` gives `a="b c"` and `d`. */
export function splitWords(text: string, escapeChar = '\\'): string[] {
  const words: string[] = [];
  let word = '';
  let quote = '';
  for (let i = 0; i < text.length; i++) {
    const char = text[i]!;
    if (char === escapeChar && quote !== "'" && i + 1 < text.length) {
      word += char + text[++i]!;
      continue;
    }
    if (quote !== '') {
      if (char === quote) quote = '';
    } else if (char === '"' || char === "'") quote = char;
    else if (/\s/.test(char)) {
      if (word !== '') words.push(word);
      word = '';
      continue;
    }
    word += char;
  }
  if (word !== '') words.push(word);
  return words;
}

/** Takes quotes and escapes away, as a shell would. */
export function unquote(word: string, escapeChar = '\\'): string {
  let plain = '';
  let quote = '';
  for (let i = 0; i < word.length; i++) {
    const char = word[i]!;
    if (char === escapeChar && quote !== "'" && i + 1 < word.length) {
      const next = word[i + 1]!;
      // Inside double quotes only these lose their backslash.
      if (quote === '"' && next !== '"' && next !== '$' && next !== escapeChar) plain += char;
      else {
        plain += next;
        i++;
      }
    } else if (quote === '' && (char === '"' || char === "'")) quote = char;
    else if (char === quote) quote = '';
    else plain += char;
  }
  return plain;
}

/** `KEY=VALUE KEY=VALUE`, or the old form `KEY VALUE`. Words are still quoted. */
export function parsePairs(
  instruction: string,
  text: string,
  escapeChar = '\\',
): [key: string, value: string][] {
  const words = splitWords(text, escapeChar);
  if (words.length === 0) throw bad(instruction, 'requires at least one argument');
  if (!words[0]!.includes('=')) {
    const [, key, value] = /^(\S+)\s+([\s\S]+)$/.exec(text.trim()) ?? [];
    if (key === undefined || value === undefined) throw bad(instruction, 'must have two arguments');
    return [[key, value]];
  }
  return words.map((word) => {
    const equals = word.indexOf('=');
    if (equals < 0)
      throw new DrydockError(
        'ERR_BAD_DOCKERFILE',
        `Syntax error - can't find = in "${word}". Must be of the form: name=value`,
      );
    if (equals === 0) throw bad(instruction, 'names can not be blank');
    return [word.slice(0, equals), word.slice(equals + 1)];
  });
}

/** Replaces or adds `NAME=value` in a list. */
export function setEnv(env: readonly string[], name: string, value: string): string[] {
  const entry = `${name}=${value}`;
  const at = env.findIndex((existing) => existing.startsWith(`${name}=`));
  return at < 0 ? [...env, entry] : env.with(at, entry);
}

/** `80`, `80/udp`, `8000-8002/tcp` as keys of ExposedPorts. */
export function parsePorts(text: string): string[] {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp|sctp))?$/i.exec(text);
  const first = Number(match?.[1]);
  const last = Number(match?.[2] ?? match?.[1]);
  if (!match || first < 1 || last > 65535 || last < first)
    throw new DrydockError('ERR_BAD_DOCKERFILE', `Invalid containerPort: ${text}`);
  const protocol = (match[3] ?? 'tcp').toLowerCase();
  return Array.from({ length: last - first + 1 }, (_, i) => `${first + i}/${protocol}`);
}

/** A Go duration (`1m30s`, `500ms`) in nanoseconds; undefined when it is none. */
export function parseDuration(text: string): number | undefined {
  if (text === '0') return 0;
  const units: Record<string, number> = { ns: 1, us: 1e3, µs: 1e3, ms: 1e6, s: 1e9, m: 60e9, h: 3600e9 };
  if (!/^(\d+(\.\d*)?(ns|us|µs|ms|s|m|h))+$/.test(text)) return undefined;
  let total = 0;
  for (const [, number, , unit] of text.matchAll(/(\d+(\.\d*)?)(ns|us|µs|ms|s|m|h)/g))
    total += Number(number) * units[unit!]!;
  return Math.round(total);
}

const HEALTH_FLAGS = {
  interval: 'Interval',
  timeout: 'Timeout',
  'start-period': 'StartPeriod',
  'start-interval': 'StartInterval',
  retries: 'Retries',
} as const;

/** HEALTHCHECK NONE, or HEALTHCHECK [--interval=... --timeout=... --start-period=... --retries=...] CMD command. */
export function parseHealthcheck(text: string): NonNullable<ImageConfig['Healthcheck']> {
  const check: NonNullable<ImageConfig['Healthcheck']> = {};
  let rest = text.trim();
  for (;;) {
    const flag = /^--([a-z-]+)=(\S*)\s*/.exec(rest);
    if (!flag) break;
    const name = flag[1]!;
    if (!Object.hasOwn(HEALTH_FLAGS, name)) throw bad('HEALTHCHECK', `Unknown flag: ${name}`);
    const field = HEALTH_FLAGS[name as keyof typeof HEALTH_FLAGS];
    const number = field === 'Retries' ? Number(flag[2]) : parseDuration(flag[2]!);
    if (number === undefined || !Number.isInteger(number) || number < 0)
      throw bad('HEALTHCHECK', `has a bad --${name}: ${flag[2]}`);
    check[field] = number;
    rest = rest.slice(flag[0].length);
  }
  const [, kind = '', command = ''] = /^(\S*)\s*([\s\S]*)$/.exec(rest) ?? [];
  if (kind.toUpperCase() === 'NONE') {
    if (command !== '') throw bad('HEALTHCHECK NONE', 'takes no arguments');
    return { Test: ['NONE'] };
  }
  if (kind.toUpperCase() !== 'CMD')
    throw bad('HEALTHCHECK', `Unknown type ${JSON.stringify(kind)} in HEALTHCHECK (try CMD)`);
  if (command === '') throw bad('HEALTHCHECK', 'Missing command after HEALTHCHECK CMD');
  const list = parseJsonForm(command);
  return { Test: list ? ['CMD', ...list] : ['CMD-SHELL', command], ...check };
}

/** The command that an instruction with a JSON or a shell form means. */
export function parseCommand(text: string, config: ImageConfig): string[] {
  return parseJsonForm(text) ?? [...(config.Shell ?? ['/bin/sh', '-c']), text.trim()];
}

/** Joins WORKDIR's argument to the directory so far. */
export function joinWorkdir(current: string, path: string): string {
  const parts: string[] = [];
  for (const part of (path.startsWith('/') ? path : `${current}/${path}`).split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  return `/${parts.join('/')}`;
}

const asSet = (keys: string[]): Record<string, object> => Object.fromEntries(keys.map((key) => [key, {}]));

/** Turns a word as written (quotes, escapes, perhaps variables) into what it means. */
export type WordReader = (raw: string) => string;

type Change = (config: ImageConfig, text: string, word: WordReader) => Partial<ImageConfig>;

const pairsOf = (instruction: string, text: string, word: WordReader): [string, string][] =>
  parsePairs(instruction, text).map(([key, value]) => [word(key), word(value)]);

const CHANGES: Record<string, Change> = {
  CMD: (config, text) => ({ Cmd: parseCommand(text, config), ArgsEscaped: undefined }),
  ENTRYPOINT: (config, text) => ({ Entrypoint: text.trim() === '' ? null : parseCommand(text, config) }),
  ENV: (config, text, word) => ({
    Env: pairsOf('ENV', text, word).reduce((env, [key, value]) => setEnv(env, key, value), config.Env ?? []),
  }),
  LABEL: (config, text, word) => ({
    Labels: { ...config.Labels, ...Object.fromEntries(pairsOf('LABEL', text, word)) },
  }),
  EXPOSE: (config, text, word) => ({
    ExposedPorts: {
      ...config.ExposedPorts,
      ...asSet(
        splitWords(text)
          // A variable may hold several.
          .flatMap((raw) => word(raw).split(/\s+/))
          .filter((port) => port !== '')
          .flatMap(parsePorts),
      ),
    },
  }),
  VOLUME: (config, text, word) => {
    const paths = parseJsonForm(text) ?? splitWords(text).map((raw) => word(raw));
    if (paths.some((path) => path.trim() === '')) throw bad('VOLUME', 'specified can not be an empty string');
    return { Volumes: { ...config.Volumes, ...asSet(paths) } };
  },
  USER: (_config, text, word) => ({ User: word(text.trim()) }),
  WORKDIR: (config, text, word) => ({
    WorkingDir: joinWorkdir(config.WorkingDir || '/', word(text.trim())),
  }),
  STOPSIGNAL: (_config, raw, word) => {
    const text = word(raw.trim());
    if (!/^(?:\d+|(?:SIG)?[A-Z0-9+-]+)$/i.test(text.trim()))
      throw bad('STOPSIGNAL', `Invalid signal: ${text}`);
    return { StopSignal: text.trim() };
  },
  ONBUILD: (config, text) => {
    const trigger = text.trim().split(/\s/)[0]!.toUpperCase();
    if (trigger === 'ONBUILD') throw bad('ONBUILD', "chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
    if (trigger === 'FROM' || trigger === 'MAINTAINER')
      throw bad(trigger, "isn't allowed as an ONBUILD trigger");
    return { OnBuild: [...(config.OnBuild ?? []), text.trim()] };
  },
  HEALTHCHECK: (_config, text) => ({ Healthcheck: parseHealthcheck(text) }),
  SHELL: (_config, text) => {
    const list = parseJsonForm(text);
    if (!list) throw bad('SHELL', 'requires the arguments to be in JSON form');
    return { Shell: list };
  },
};

/** Whether the instruction only changes the configuration. */
export function isChange(instruction: string): boolean {
  return Object.hasOwn(CHANGES, instruction);
}

/**
 * Applies one instruction. `text` is what follows its name.
 * @throws DrydockError ERR_BAD_DOCKERFILE
 */
export function applyChange(
  config: ImageConfig,
  instruction: string,
  text: string,
  word: WordReader = unquote,
): ImageConfig {
  if (text.trim() === '' && instruction !== 'CMD' && instruction !== 'ENTRYPOINT')
    throw bad(instruction, 'requires at least one argument');
  return { ...config, ...CHANGES[instruction]!(config, text, word) };
}

/** Applies whole lines, as `docker import --change` takes them. @throws DrydockError ERR_BAD_DOCKERFILE */
export function applyChangeLines(config: ImageConfig, lines: readonly string[]): ImageConfig {
  for (const line of lines) {
    const [, name = '', text = ''] = /^\s*(\S+)\s*([\s\S]*)$/.exec(line) ?? [];
    const instruction = name.toUpperCase();
    // moby, daemon/images: validCommitCommands.
    if (!isChange(instruction) || instruction === 'SHELL')
      throw new DrydockError('ERR_BAD_DOCKERFILE', `${name} is not a valid change command`);
    config = applyChange(config, instruction, text);
  }
  return config;
}
