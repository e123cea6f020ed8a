/**
 * ARG: what the Dockerfile declares and the client gives. Arguments before the first FROM are for FROM lines, and for
 * stages that declare them again; those of a stage end with it. The proxies need no declaration and stay out of the
 * history (docs.docker.com/reference/dockerfile, "Predefined ARGs").
 */
import { DrydockError } from '#common/errors';
import { splitWords } from '../image/changes.ts';
import { hostPlatform, type Platform } from '../image/platform.ts';

const PREDEFINED = new Set(
  ['HTTP_PROXY', 'HTTPS_PROXY', 'FTP_PROXY', 'NO_PROXY', 'ALL_PROXY'].flatMap((name) => [
    name,
    name.toLowerCase(),
  ]),
);

type Expand = (word: string) => string;

export class BuildArguments {
  readonly #given: Map<string, string | undefined>;
  readonly #target: Platform;
  readonly #platform: ReadonlyMap<string, string>;
  readonly #globals: Map<string, string>;
  readonly #declared: Set<string>;
  /** Undefined before the first FROM. */
  readonly #stage: Map<string, string | undefined> | undefined;

  /** @param target the platform to build for @param outer what a stage shares with the others */
  constructor(given: Map<string, string | undefined>, target: Platform, outer?: BuildArguments) {
    this.#given = given;
    this.#target = target;
    this.#platform = platformArguments(target);
    this.#globals = outer ? outer.#globals : new Map();
    this.#declared = outer ? outer.#declared : new Set();
    this.#stage = outer && new Map();
  }

  /** The scope of one stage: it shares the globals. */
  forStage(): BuildArguments {
    return new BuildArguments(this.#given, this.#target, this);
  }

  /** Takes over what another stage has declared. */
  inherit(other: BuildArguments): void {
    for (const [name, value] of other.#stage ?? []) this.#stage?.set(name, value);
  }

  /** ARG before the first FROM. */
  declareGlobal(text: string, expand: Expand): void {
    for (const [name, fallback] of parse(text, expand)) {
      this.#declared.add(name);
      const value = this.#given.get(name) ?? fallback;
      if (value !== undefined) this.#globals.set(name, value);
    }
  }

  /** ARG in a stage. Returns its text for the history. */
  declare(text: string, expand: Expand): string {
    const parsed = parse(text, expand);
    for (const [name, fallback] of parsed) {
      this.#declared.add(name);
      const inherited = this.#globals.get(name) ?? this.#platform.get(name);
      this.#stage!.set(name, this.#given.get(name) ?? fallback ?? inherited);
    }
    return parsed
      .map(([name, fallback]) => (fallback === undefined ? name : `${name}=${fallback}`))
      .join(' ');
  }

  globals(): Map<string, string> {
    return new Map([...this.#platform, ...this.#globals]);
  }

  /** Arguments, then the environment, which wins. */
  variables(env: readonly string[]): Map<string, string> {
    const variables = new Map<string, string>();
    for (const [name, value] of this.#stage ?? this.globals())
      if (value !== undefined) variables.set(name, value);
    for (const entry of env) {
      const equals = entry.indexOf('=');
      variables.set(entry.slice(0, equals), entry.slice(equals + 1));
    }
    return variables;
  }

  /** What RUN gets into its environment besides ENV, by name. */
  forRun(env: readonly string[]): [name: string, value: string, isPredefined: boolean][] {
    const inEnv = new Set(env.map((entry) => entry.slice(0, entry.indexOf('='))));
    const values = new Map<string, [string, boolean]>();
    for (const [name, value] of this.#given)
      if (PREDEFINED.has(name) && value !== undefined) values.set(name, [value, !this.#stage?.has(name)]);
    for (const [name, value] of this.#stage ?? []) if (value !== undefined) values.set(name, [value, false]);
    return [...values]
      .filter(([name]) => !inEnv.has(name))
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, [value, isPredefined]]) => [name, value, isPredefined]);
  }

  /** Arguments of the client that nothing has declared. */
  unused(): string[] {
    return [...this.#given.keys()]
      .filter((name) => !this.#declared.has(name) && !PREDEFINED.has(name) && !name.startsWith('BUILDKIT_'))
      .sort();
  }
}

function parse(text: string, expand: Expand): [name: string, fallback: string | undefined][] {
  const words = splitWords(text);
  if (words.length === 0) throw new DrydockError('ERR_BAD_DOCKERFILE', 'ARG requires at least one argument');
  return words.map((word) => {
    const equals = word.indexOf('=');
    const name = equals < 0 ? word : word.slice(0, equals);
    if (name === '') throw new DrydockError('ERR_BAD_DOCKERFILE', 'ARG names can not be blank');
    return [name, equals < 0 ? undefined : expand(word.slice(equals + 1))];
  });
}

/** What BuildKit defines for every build; the builder is this machine. */
function platformArguments(target: Platform): Map<string, string> {
  const build = hostPlatform();
  return new Map([
    ['TARGETPLATFORM', formatPlatform(target)],
    ['TARGETOS', target.os],
    ['TARGETARCH', target.architecture],
    ['TARGETVARIANT', target.variant ?? ''],
    ['BUILDPLATFORM', formatPlatform(build)],
    ['BUILDOS', build.os],
    ['BUILDARCH', build.architecture],
    ['BUILDVARIANT', build.variant ?? ''],
  ]);
}

function formatPlatform({ os, architecture, variant }: Platform): string {
  return [os, architecture, variant].filter((part) => part !== undefined).join('/');
}
