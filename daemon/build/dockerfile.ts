/**
 * Dockerfiles as lists of instructions: continuation lines joined, comments dropped, parser directives, flags and
 * here-documents taken out. Arguments stay text; what they mean is the instructions' business. Pure functions.
 *
 * docs.docker.com/reference/dockerfile; buildkit, frontend/dockerfile/parser/parser.go.
 */
import { DrydockError } from '#common/errors';

/** A here-document of an instruction. */
export interface Heredoc {
  name: string;
  /** Whether variables are expanded in it: not when its name was quoted. */
  expand: boolean;
  content: string;
}

/** One instruction. */
export interface Instruction {
  /** In capitals. */
  name: string;
  /** `--name=value`, in order; the value is `true` for `--name`. */
  flags: [name: string, value: string][];
  /** What follows name and flags, on one line. */
  text: string;
  heredocs: Heredoc[];
  /** As written, joined to one line, for the progress. */
  original: string;
  /** Where it begins, counted from 1. */
  line: number;
}

export interface Dockerfile {
  /** The escape character. */
  escape: string;
  /** The frontend that `# syntax=` asks for. */
  syntax?: string;
  /** What `# check=` asks of the linter. */
  check?: string;
  instructions: Instruction[];
}

/** BuildKit's limit for a line, for what is read from strangers. */
const DOCKERFILE_BYTES_MAX = 4 << 20;

const NAMES = new Set([
  'ADD',
  'ARG',
  'CMD',
  'COPY',
  'ENTRYPOINT',
  'ENV',
  'EXPOSE',
  'FROM',
  'HEALTHCHECK',
  'LABEL',
  'MAINTAINER',
  'ONBUILD',
  'RUN',
  'SHELL',
  'STOPSIGNAL',
  'USER',
  'VOLUME',
  'WORKDIR',
]);
/** HEALTHCHECK's flags are part of its own grammar. */
const FLAGGED = new Set(['ADD', 'COPY', 'FROM', 'RUN']);
const WITH_HEREDOCS = new Set(['ADD', 'COPY', 'RUN']);

/** The error for a Dockerfile that can't be understood. */
export function dockerfileError(line: number, reason: string): DrydockError {
  return new DrydockError('ERR_BAD_DOCKERFILE', `dockerfile parse error on line ${line}: ${reason}`);
}

interface Cursor {
  lines: string[];
  at: number;
  escape: string;
}

/** Parses a Dockerfile. @throws DrydockError ERR_BAD_DOCKERFILE with the line's number */
export function parseDockerfile(text: string): Dockerfile {
  if (text.length > DOCKERFILE_BYTES_MAX) throw dockerfileError(1, 'the file is larger than 4 MiB');
  const lines = text.replace(/^\ufeff/, '').split(/\r?\n/);
  const directive = directives(lines);
  const syntax = directive.get('syntax');
  const check = directive.get('check');
  const cursor: Cursor = { lines, at: 0, escape: directive.get('escape') ?? '\\' };
  if (cursor.escape !== '\\' && cursor.escape !== '`')
    throw dockerfileError(1, `invalid ESCAPE ${JSON.stringify(cursor.escape)}. Must be \` or \\`);
  const instructions: Instruction[] = [];
  for (;;) {
    const line = cursor.at + 1;
    const joined = nextLogicalLine(cursor);
    if (joined === undefined) break;
    if (joined.trim() !== '') instructions.push(parseInstruction(joined.trim(), line, cursor));
  }
  if (instructions.length === 0)
    throw new DrydockError('ERR_BAD_DOCKERFILE', 'the Dockerfile cannot be empty');
  return {
    escape: cursor.escape,
    ...(syntax !== undefined && { syntax }),
    ...(check !== undefined && { check }),
    instructions,
  };
}

/** `# key=value` lines before anything else. */
function directives(lines: string[]): Map<string, string> {
  const found = new Map<string, string>();
  for (const line of lines) {
    const [, key, value] = /^#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$/.exec(line) ?? [];
    if (key === undefined) break;
    found.set(key.toLowerCase(), value!);
  }
  return found;
}

/** The next line with its continuations; comments and, inside of a continuation, empty lines are dropped. */
function nextLogicalLine(cursor: Cursor): string | undefined {
  const { lines } = cursor;
  const continues = new RegExp(`${cursor.escape === '\\' ? '\\\\' : cursor.escape}[ \\t]*$`);
  let joined = '';
  let isOpen = false;
  while (cursor.at < lines.length) {
    const line = lines[cursor.at++]!;
    if (/^\s*#/.test(line) || (isOpen && line.trim() === '')) continue;
    if (!continues.test(line)) return joined + line;
    joined += line.replace(continues, '');
    isOpen = true;
  }
  return isOpen ? joined : undefined;
}

function parseInstruction(joined: string, line: number, cursor: Cursor): Instruction {
  const [, word = '', rest = ''] = /^(\S+)\s*([\s\S]*)$/.exec(joined) ?? [];
  const name = word.toUpperCase();
  if (!NAMES.has(name)) throw dockerfileError(line, `unknown instruction: ${word}`);
  const heredocs = WITH_HEREDOCS.has(name) ? readHeredocs(rest, line, cursor) : [];
  const { flags, text } = FLAGGED.has(name) ? takeFlags(rest) : { flags: [], text: rest };
  return { name, flags, text: text.trim(), heredocs, original: joined, line };
}

function takeFlags(rest: string): { flags: [string, string][]; text: string } {
  const flags: [string, string][] = [];
  let text = rest;
  for (;;) {
    const match = /^--([a-zA-Z][a-zA-Z0-9-]*)(?:=(\S*))?(?:\s+|$)/.exec(text);
    if (!match) return { flags, text };
    flags.push([match[1]!, match[2] ?? 'true']);
    text = text.slice(match[0].length);
  }
}

/** `<<NAME`, `<<-NAME`, `<<"NAME"`, where it is no shift and no here-string. */
const HEREDOC = /(?<![<\w])<<(-?)(["']?)([^\s<>"';|&()]+)\2(?=[\s>;|&]|$)/g;

/** Reads the bodies of the here-documents that an instruction's line announces. */
function readHeredocs(rest: string, line: number, cursor: Cursor): Heredoc[] {
  const found: Heredoc[] = [];
  for (const [, dash, quote, name] of rest.matchAll(HEREDOC)) {
    const body: string[] = [];
    for (;;) {
      const next = cursor.lines[cursor.at++];
      if (next === undefined) throw dockerfileError(line, `unterminated heredoc ${name}`);
      const content = dash ? next.replace(/^\t+/, '') : next;
      if (content === name) break;
      body.push(content);
    }
    found.push({ name: name!, expand: quote === '', content: body.map((each) => `${each}\n`).join('') });
  }
  return found;
}
