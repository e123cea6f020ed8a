/**
 * `drydock context`: entries for this daemon in the docker CLI's store of contexts, without the docker CLI. A context is
 * `contexts/meta/SHA256-OF-NAME/meta.json` in docker's configuration folder (docker/cli, cli/context/store), and the one in use is
 * `currentContext` in its config.json.
 */
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { type Command, Option } from 'commander';
import { explain } from '#common/command-help';
import { DrydockError, errorCode } from '#common/errors';
import { parseHost } from '../config.ts';
import { DEFAULTS } from '../config-options.ts';
import { addFormat, type Format, print } from './format.ts';

const NAME_DEFAULT = 'drydock';
/** docker/cli, cli/context/store: what it takes as a name. */
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$/;

interface ContextFacts {
  name: string;
  host: string;
  description: string;
  current: boolean;
}

interface Meta {
  Name: string;
  Metadata?: { Description?: string };
  Endpoints?: { docker?: { Host?: string; SkipTLSVerify?: boolean } };
}

/** docker's folder: DOCKER_CONFIG or ~/.docker. */
const dockerFolder = (): string => process.env.DOCKER_CONFIG || join(homedir(), '.docker');

function folderOf(name: string): string {
  if (!NAME.test(name) || name === 'default')
    throw new DrydockError(
      'ERR_CONTEXT_NAME',
      `"${name}" cannot be a context's name: use letters, digits and _.+-, two or more, and not "default".`,
    );
  return join(dockerFolder(), 'contexts', 'meta', createHash('sha256').update(name).digest('hex'));
}

async function readJson<T>(path: string): Promise<T | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as T;
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw new DrydockError('ERR_CONTEXT_STORE', `${path} cannot be read: ${(error as Error).message}`);
  }
}

/** Whole or not at all: docker may read it at any time. */
async function writeJson(path: string, value: object): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const next = `${path}.${process.pid}`;
  await writeFile(next, `${JSON.stringify(value, null, '\t')}\n`, { mode: 0o600 });
  await rename(next, path);
}

/** What is told of a context. @param current the name of the one in use */
function factsOf(meta: Meta, current: string | undefined): ContextFacts {
  return {
    name: meta.Name,
    host: meta.Endpoints?.docker?.Host ?? '',
    description: meta.Metadata?.Description ?? '',
    current: meta.Name === current,
  };
}

const settingsPath = (): string => join(dockerFolder(), 'config.json');

/** Makes `name` the context in use, undefined docker's default. */
async function setCurrent(name: string | undefined): Promise<void> {
  const { currentContext: _before, ...rest } =
    (await readJson<Record<string, unknown>>(settingsPath())) ?? {};
  await writeJson(settingsPath(), name === undefined ? rest : { ...rest, currentContext: name });
}

async function currentName(): Promise<string | undefined> {
  return (await readJson<{ currentContext?: string }>(settingsPath()))?.currentContext;
}

/** What docker can call: a socket, or a command behind ssh. @throws ERR_CONTEXT_HOST */
function requireCallable(host: string): void {
  if (/^ssh:\/\/\S+$/.test(host)) return;
  try {
    if (parseHost(host).kind !== 'fd') return;
  } catch {
    // What a daemon cannot listen on either.
  }
  throw new DrydockError(
    'ERR_CONTEXT_HOST',
    `${host} is nothing that docker can call: write unix:///path/to/socket, tcp://address:port, or ssh://user@host/path/to/socket.`,
  );
}

async function create(
  name: string,
  flags: { host: string; description: string; force?: true; format: Format },
): Promise<void> {
  requireCallable(flags.host);
  const path = join(folderOf(name), 'meta.json');
  if (flags.force !== true && (await readJson<Meta>(path)))
    throw new DrydockError(
      'ERR_CONTEXT_EXISTS',
      `The context ${name} is there already. Give another name, or --force to replace it.`,
    );
  const meta: Meta = {
    Name: name,
    Metadata: { Description: flags.description },
    Endpoints: { docker: { Host: flags.host, SkipTLSVerify: false } },
  };
  await writeJson(path, meta);
  print(
    flags.format,
    factsOf(meta, await currentName()),
    () => `${name}\nUse it with: docker context use ${name}`,
  );
}

async function use(name: string, { format }: { format: Format }): Promise<void> {
  const meta = await readJson<Meta>(join(folderOf(name), 'meta.json'));
  if (!meta)
    throw new DrydockError(
      'ERR_CONTEXT_UNKNOWN',
      `There is no context ${name}. Make it with: drydock context create ${name}`,
    );
  await setCurrent(name);
  print(format, factsOf(meta, name), () => name);
  if (process.env.DOCKER_HOST)
    process.stderr.write('DOCKER_HOST is set and wins over the context: unset DOCKER_HOST\n');
}

async function remove(name: string, { format }: { format: Format }): Promise<void> {
  const folder = folderOf(name);
  const meta = await readJson<Meta>(join(folder, 'meta.json'));
  if (!meta) throw new DrydockError('ERR_CONTEXT_UNKNOWN', `There is no context ${name}.`);
  if ((await currentName()) === name) await setCurrent(undefined);
  await rm(folder, { recursive: true });
  print(format, factsOf(meta, undefined), () => name);
}

async function list(): Promise<ContextFacts[]> {
  const folder = join(dockerFolder(), 'contexts', 'meta');
  const entries = await readdir(folder).catch(() => []);
  const current = await currentName();
  const found = await Promise.all(entries.map((entry) => readJson<Meta>(join(folder, entry, 'meta.json'))));
  return found
    .filter((meta) => meta !== undefined)
    .map((meta) => factsOf(meta, current))
    .sort((a, b) => a.name.localeCompare(b.name));
}

function listText(contexts: readonly ContextFacts[]): string {
  if (contexts.length === 0) return 'no contexts; make one with: drydock context create';
  const width = Math.max(...contexts.map(({ name }) => name.length));
  return contexts
    .map(({ name, host, current }) => `${current ? '*' : ' '} ${name.padEnd(width)}  ${host}`)
    .join('\n');
}

/** Fills the command. */
export function defineContext(command: Command): void {
  const environment = { DOCKER_CONFIG: "docker's configuration folder instead of ~/.docker" };
  const made = addFormat(command.command('create'))
    .description('let `docker context use` know a daemon')
    .argument('[name]', `name of the context (default: ${NAME_DEFAULT})`, NAME_DEFAULT)
    .addOption(new Option('-H, --host <address>', 'where the daemon listens').default(DEFAULTS.hosts[0]))
    .option('--description <text>', 'shown by docker context ls', 'Drydock on this host')
    .option('--force', 'replace a context of that name')
    .action(create);
  explain(made, {
    examples: [
      {
        text: 'for the daemon of this host',
        command: 'drydock context create && docker context use drydock',
      },
      {
        text: 'for a second daemon',
        command: 'drydock context create second --host unix:///run/second/docker.sock',
      },
    ],
    environment,
  });
  const used = addFormat(command.command('use'))
    .description('let docker commands go to a context from now on')
    .argument('[name]', `name of the context (default: ${NAME_DEFAULT})`, NAME_DEFAULT)
    .action(use);
  explain(used, {
    examples: [{ text: 'the same as docker context use', command: 'drydock context use' }],
    environment,
  });
  const removed = addFormat(command.command('rm'))
    .description('forget a context; docker goes back to its default when it was in use')
    .argument('[name]', `name of the context (default: ${NAME_DEFAULT})`, NAME_DEFAULT)
    .action(remove);
  explain(removed, {
    examples: [{ text: 'undo context create', command: 'drydock context rm' }],
    environment,
  });
  const listed = addFormat(command.command('ls').description("list docker's contexts")).action(
    async ({ format }: { format: Format }) => print(format, await list(), listText),
  );
  explain(listed, {
    examples: [{ text: 'for a script', command: 'drydock context ls --format json' }],
    environment,
  });
}
