/**
 * Reads seatbelt profiles and decides by them, for tests. What Apple's kernel does is closed; here is what the profile
 * says, by each of the models of precedence that observations of others fit. A profile that means different things by
 * different models is an error.
 */

/** What a process wants to do. */
export interface Attempt {
  operation: string;
  /** Of a file, with symbolic links resolved; of a local socket with `network-*`. */
  path?: string;
  /** `HOST:PORT` of the other side or, with `network-bind` and `-inbound`, of the own. */
  address?: string;
  /** Whom a signal or a look is for. */
  target?: 'self' | 'same-sandbox' | 'others';
  /** A service, a sysctl or a socket's domain. */
  name?: string;
}

export const MODELS = ['observed', 'last match', 'first match', 'deny overrides'] as const;
export type Model = (typeof MODELS)[number];

type Expression = string | { text: string } | Expression[];
type Filter = (attempt: Attempt) => boolean;

interface Rule {
  allow: boolean;
  operations: string[];
  filter: Filter | undefined;
}

/** A profile that was read. */
export interface Profile {
  defaultAllow: boolean;
  rules: Rule[];
}

/** Operations that are known (macOS 14.4); those with a star stand for all that begin so. */
const OPERATIONS = new Set(
  `default file* file-chroot file-clone file-ioctl file-link file-map-executable file-mknod file-mount file-mount-update
  file-read* file-read-data file-read-metadata file-read-xattr file-revoke file-search file-test-existence file-unmount
  file-write* file-write-acl file-write-create file-write-data file-write-finderinfo file-write-flags file-write-mode
  file-write-owner file-write-setugid file-write-times file-write-unlink file-write-xattr fs-snapshot* iokit-open*
  ipc-posix* ipc-posix-sem* ipc-posix-shm* ipc-posix-sem-open ipc-posix-shm-read-data ipc-posix-shm-write-create ipc-sysv*
  ipc-sysv-shm ipc-sysv-sem ipc-sysv-msg job-creation lsopen appleevent-send mach-lookup mach-register mach-priv-task-port
  mach-task-name network* network-inbound network-bind network-outbound nvram* process-exec* process-fork process-info*
  process-info-pidinfo pseudo-tty signal socket-ioctl sysctl-read sysctl-write system-socket system-privilege
  system-kext-load system-reboot`.split(/\s+/),
);

/** S-expressions, with strings told from symbols. */
function read(text: string): Expression[] {
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[()]|[^\s()"]+/g) ?? [];
  const stack: Expression[][] = [[]];
  for (const token of tokens) {
    if (token === '(') stack.push([]);
    else if (token === ')') {
      const list = stack.pop()!;
      if (stack.length === 0) throw new Error('a parenthesis too many is closed');
      stack.at(-1)!.push(list);
    } else stack.at(-1)!.push(token.startsWith('"') ? { text: JSON.parse(token) } : token);
  }
  if (stack.length !== 1) throw new Error('a parenthesis is not closed');
  return stack[0]!;
}

class Reader {
  readonly #parameters: Record<string, string>;

  constructor(parameters: Record<string, string>) {
    this.#parameters = parameters;
  }

  rule(form: Expression): Rule {
    if (!Array.isArray(form)) throw new Error(`not a rule: ${form}`);
    const [action, ...rest] = form;
    if (action !== 'allow' && action !== 'deny') throw new Error(`unknown action ${action}`);
    const operations = rest.filter((part) => typeof part === 'string');
    for (const operation of operations)
      if (!OPERATIONS.has(operation)) throw new Error(`unknown operation ${operation}`);
    const filters = rest.filter((part) => Array.isArray(part)).map((part) => this.#filter(part));
    return {
      allow: action === 'allow',
      operations,
      filter: filters.length === 0 ? undefined : (attempt) => filters.some((filter) => filter(attempt)),
    };
  }

  #text(value: Expression | undefined): string {
    if (Array.isArray(value) && value[0] === 'param') {
      const found = this.#parameters[this.#text(value[1])];
      if (found === undefined) throw new Error(`parameter ${this.#text(value[1])} has no value`);
      return found;
    }
    if (typeof value === 'object' && 'text' in value) return value.text;
    throw new Error(`not a string: ${JSON.stringify(value)}`);
  }

  #path(value: Expression | undefined): string {
    const path = this.#text(value);
    if (!path.startsWith('/')) throw new Error(`${path} is not absolute`);
    if (path.length > 1 && path.endsWith('/'))
      throw new Error(`${path} ends with a slash and matches nothing`);
    return path;
  }

  #filter(form: Expression): Filter {
    if (!Array.isArray(form)) throw new Error(`not a filter: ${JSON.stringify(form)}`);
    const [kind, first, second] = form;
    const nested = (): Filter[] => form.slice(1).map((part) => this.#filter(part));
    switch (kind) {
      case 'require-all': {
        const parts = nested();
        return (attempt) => parts.every((part) => part(attempt));
      }
      case 'require-any': {
        const parts = nested();
        return (attempt) => parts.some((part) => part(attempt));
      }
      case 'require-not': {
        const [part] = nested();
        return (attempt) => !part!(attempt);
      }
      case 'literal': {
        const path = this.#path(first);
        return (attempt) => attempt.path === path;
      }
      case 'subpath': {
        const path = this.#path(first);
        return (attempt) =>
          attempt.path !== undefined &&
          (path === '/' || attempt.path === path || attempt.path.startsWith(`${path}/`));
      }
      case 'path-ancestors': {
        const path = this.#path(first);
        return (attempt) =>
          attempt.path === '/' || (attempt.path !== undefined && path.startsWith(`${attempt.path}/`));
      }
      case 'target':
        return (attempt) =>
          attempt.target === first || (first === 'same-sandbox' && attempt.target === 'self');
      case 'global-name':
      case 'sysctl-name': {
        const name = this.#text(first);
        return (attempt) => attempt.name === name;
      }
      case 'sysctl-name-prefix': {
        const prefix = this.#text(first);
        return (attempt) => attempt.name?.startsWith(prefix) ?? false;
      }
      case 'socket-domain':
        return (attempt) => attempt.name === first;
      case 'local':
      case 'remote':
        return this.#socket(first, second);
      default:
        throw new Error(`unknown filter ${kind}`);
    }
  }

  #socket(family: Expression | undefined, value: Expression | undefined): Filter {
    if (family === 'unix-socket') {
      const path = this.#filter(value!);
      return (attempt) => attempt.address === undefined && path(attempt);
    }
    const [host, port] = this.#text(value).split(/:(?=[^:]*$)/);
    if (host !== '*' && host !== 'localhost')
      throw new Error('host must be * or localhost in network address');
    return (attempt) => {
      if (attempt.address === undefined) return false;
      const [to, toPort] = attempt.address.split(/:(?=[^:]*$)/);
      return (host === '*' || to === '127.0.0.1' || to === '::1') && (port === '*' || port === toPort);
    };
  }
}

/** @throws Error for what sandbox_init would refuse, as far as that is known. */
export function readProfile(text: string, parameters: Record<string, string>): Profile {
  const [version, ...forms] = read(text);
  if (JSON.stringify(version) !== '["version","1"]') throw new Error('a profile begins with its version');
  const reader = new Reader(parameters);
  const rules = forms.map((form) => reader.rule(form));
  const fallback = rules.find(({ operations }) => operations.includes('default'));
  if (!fallback || fallback.filter) throw new Error('a profile says what happens by default');
  return { defaultAllow: fallback.allow, rules: rules.filter((rule) => rule !== fallback) };
}

/** The operation, then those with a star that stand for it, the narrowest first. */
function chain(operation: string): string[] {
  const covers = [...OPERATIONS].filter(
    (other) => other.endsWith('*') && other !== operation && operation.startsWith(other.slice(0, -1)),
  );
  return [operation, ...covers.sort((a, b) => b.length - a.length)];
}

function decideBy(model: Model, { rules, defaultAllow }: Profile, attempt: Attempt): boolean {
  const names = chain(attempt.operation);
  const matches = (rule: Rule): boolean => rule.filter === undefined || rule.filter(attempt);
  if (model === 'observed') {
    for (const name of names) {
      const own = rules.filter((rule) => rule.operations.includes(name));
      const won =
        own.findLast((rule) => rule.filter !== undefined && matches(rule)) ??
        own.findLast((rule) => rule.filter === undefined);
      if (won) return won.allow;
    }
    return defaultAllow;
  }
  const fitting = rules.filter(
    (rule) => rule.operations.some((operation) => names.includes(operation)) && matches(rule),
  );
  if (model === 'deny overrides' && fitting.some((rule) => !rule.allow)) return false;
  return (model === 'last match' ? fitting.at(-1) : fitting[0])?.allow ?? defaultAllow;
}

/** Whether the profile allows it. @throws Error when the models of precedence disagree. */
export function decide(profile: Profile, attempt: Attempt): boolean {
  if (!OPERATIONS.has(attempt.operation)) throw new Error(`unknown operation ${attempt.operation}`);
  const answers = new Set(MODELS.map((model) => decideBy(model, profile, attempt)));
  if (answers.size > 1) throw new Error(`precedence decides about ${JSON.stringify(attempt)}`);
  return answers.has(true);
}
