/**
 * What goes with a bug report: one JSON file that a person can read before sending it, with secrets removed. What is a secret is
 * told by its name, its form, or by being the value of a variable with such a name.
 */
import { CONFIG_FILE_DEFAULT, DEFAULTS } from '../../config-options.ts';
import { type Finding, getJson, type HostView } from './host.ts';

const REMOVED = '(removed)';
const SECRET_NAME =
  /pass(word|wd|phrase)?|secret|token|api[-_]?key|private[-_]?key|credential|authorization|\bauth/i;
/** Shorter values would be found in innocent words. */
const SECRET_LENGTH_MIN = 6;
/** Variables that matter to the daemon. No other one is told. */
const TOLD_VARIABLES =
  /^(DOCKER_(HOST|CONTEXT|CONFIG|API_VERSION|TLS_VERIFY)|DRYDOCK_\w+|(HTTPS?|NO|ALL)_PROXY|NO_COLOR|LANG|TERM|PATH|XDG_\w+)$/i;

const FORMS: readonly [RegExp, string][] = [
  [/-----BEGIN [^-]+-----[\s\S]*?-----END [^-]+-----/g, REMOVED],
  // URL with a user: RFC 3986 section 3.2.1.
  [/([a-z][a-z0-9+.-]*:\/\/)[^\s/@"']+@/gi, `$1${REMOVED}@`],
  [/\b(Bearer|Basic|Token)\s+[A-Za-z0-9._~+/=-]{8,}/gi, `$1 ${REMOVED}`],
  [/\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*/g, REMOVED],
  // Go on over an escaped quote, and over JSON in JSON.
  [
    /([\w-]*(?:pass(?:word|wd|phrase)?|secret|token|api[-_]?key|private[-_]?key|credential)[\w-]*\\?["']?\s*[=:]\s*)(\\?"(?:[^"\\]|\\.)*"|'[^']*'|[^\s,;&"'}]+)/gi,
    `$1${REMOVED}`,
  ],
];

/** Removes secrets from values of any depth. */
export class Redactor {
  readonly #values: string[];
  readonly #home: string;

  /** @param env variables whose values are secrets when their names say so */
  constructor(env: HostView['env'], home: string) {
    this.#home = home;
    const secrets = Object.entries(env).flatMap(([name, value = '']) =>
      SECRET_NAME.test(name) && value.length >= SECRET_LENGTH_MIN ? [value] : [],
    );
    // The longest first: one may be a part of another.
    this.#values = secrets.sort((a, b) => b.length - a.length);
  }

  text(text: string): string {
    let clean = text;
    for (const value of this.#values) clean = clean.replaceAll(value, REMOVED);
    for (const [form, put] of FORMS) clean = clean.replace(form, put);
    return this.#home.length > 1 ? clean.replaceAll(this.#home, '~') : clean;
  }

  value(value: unknown): unknown {
    if (typeof value === 'string') return this.text(value);
    if (Array.isArray(value)) return value.map((item) => this.value(item));
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(
      Object.entries(value).map(([name, inner]) => [
        this.text(name),
        SECRET_NAME.test(name) && inner !== null && typeof inner !== 'boolean' ? REMOVED : this.value(inner),
      ]),
    );
  }
}

/** A text as JSON where it is, so that secrets are found by their keys. */
function parsed(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    return text;
  }
}

/** The end of the service's log. */
const JOURNAL_ARGS = ['-u', 'drydock.service', '-n', '500', '--no-pager', '-o', 'short-iso'];

/** Makes a bundle's contents. */
export async function makeBundle(host: HostView, version: string, findings: Finding[]): Promise<object> {
  const redact = new Redactor(host.env, host.home);
  const socket = DEFAULTS.hosts[0]!.slice('unix://'.length);
  const running = host.exists(socket);
  const told = Object.entries(host.env).filter(([name]) => TOLD_VARIABLES.test(name));
  return redact.value({
    drydock: version,
    node: host.nodeVersion,
    platform: host.platform,
    kernel: host.run('uname', ['-srm'])?.trim(),
    docker: host.run('docker', ['--version'])?.trim(),
    findings,
    environment: Object.fromEntries(told),
    configuration: parsed(host.read(CONFIG_FILE_DEFAULT)),
    mounts: host.read('/proc/self/mountinfo')?.trim().split('\n'),
    daemon: running
      ? { version: await getJson(socket, '/version'), info: await getJson(socket, '/info') }
      : 'not running',
    // Cleaned as one text: a key spans lines.
    log: redact
      .text(host.run('journalctl', JOURNAL_ARGS) ?? '')
      .trim()
      .split('\n'),
  }) as object;
}
