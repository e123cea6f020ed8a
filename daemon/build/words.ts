/**
 * Words of Dockerfiles: quotes, escapes and variables, as docker's shell lexer reads them (buildkit,
 * frontend/dockerfile/shell/lex.go). Pure functions.
 */
import { DrydockError } from '#common/errors';

/** The variables that a word may name. */
export type Variables = ReadonlyMap<string, string>;

function bad(word: string, reason: string): DrydockError {
  return new DrydockError('ERR_BAD_DOCKERFILE', `failed to process ${JSON.stringify(word)}: ${reason}`);
}

/** Reads one word: quotes and escapes go, variables are replaced. @throws ERR_BAD_DOCKERFILE for broken ones */
export function expandWord(word: string, variables: Variables, escapeChar = '\\'): string {
  return new Lexer(word, variables, escapeChar).all();
}

/** Replaces variables in text that is no word (a here-document): quotes stay what they are. */
export function expandText(text: string, variables: Variables, escapeChar = '\\'): string {
  return new Lexer(text, variables, escapeChar).text();
}

class Lexer {
  readonly #source: string;
  readonly #variables: Variables;
  readonly #escape: string;
  #at = 0;

  constructor(source: string, variables: Variables, escapeChar: string) {
    this.#source = source;
    this.#variables = variables;
    this.#escape = escapeChar;
  }

  all(): string {
    return this.#until('');
  }

  text(): string {
    let out = '';
    while (this.#at < this.#source.length) {
      const char = this.#source[this.#at]!;
      const next = this.#source[this.#at + 1];
      if (char === this.#escape && (next === '$' || next === this.#escape)) {
        out += next;
        this.#at += 2;
      } else if (char === '$') out += this.#dollar();
      else {
        out += char;
        this.#at++;
      }
    }
    return out;
  }

  /** Reads up to `end`, which is left unread. */
  #until(end: string): string {
    let out = '';
    while (this.#at < this.#source.length) {
      const char = this.#source[this.#at]!;
      if (char === end) return out;
      if (char === "'") out += this.#single();
      else if (char === '"') out += this.#double();
      else if (char === '$') out += this.#dollar();
      else if (char === this.#escape) {
        // An escape at the very end stands for itself.
        out += this.#source[this.#at + 1] ?? char;
        this.#at += 2;
      } else {
        out += char;
        this.#at++;
      }
    }
    if (end !== '') throw bad(this.#source, `expected ${end}`);
    return out;
  }

  #single(): string {
    const end = this.#source.indexOf("'", this.#at + 1);
    if (end < 0)
      throw bad(this.#source, 'unexpected end of statement while looking for matching single-quote');
    const out = this.#source.slice(this.#at + 1, end);
    this.#at = end + 1;
    return out;
  }

  #double(): string {
    let out = '';
    this.#at++;
    while (this.#at < this.#source.length) {
      const char = this.#source[this.#at]!;
      if (char === '"') {
        this.#at++;
        return out;
      }
      if (char === '$') out += this.#dollar();
      else if (char === this.#escape) {
        const next = this.#source[this.#at + 1];
        if (next === undefined) break;
        // Only these lose their escape inside double quotes.
        out += next === '"' || next === '$' || next === this.#escape ? next : char + next;
        this.#at += 2;
      } else {
        out += char;
        this.#at++;
      }
    }
    throw bad(this.#source, 'unexpected end of statement while looking for matching double-quote');
  }

  #dollar(): string {
    this.#at++;
    if (this.#source[this.#at] === '{') return this.#braced();
    const name = /^(?:[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?!$-])/.exec(this.#source.slice(this.#at))?.[0];
    if (name === undefined) return '$';
    this.#at += name.length;
    return this.#variables.get(name) ?? '';
  }

  #braced(): string {
    this.#at++;
    const name = /^[A-Za-z_][A-Za-z0-9_]*/.exec(this.#source.slice(this.#at))?.[0];
    if (name === undefined) throw bad(this.#source, 'bad substitution');
    this.#at += name.length;
    const value = this.#variables.get(name);
    const modifier = /^(?::?[-+?])/.exec(this.#source.slice(this.#at))?.[0] ?? '';
    this.#at += modifier.length;
    if (modifier === '' && this.#source[this.#at] !== '}')
      throw bad(this.#source, 'unsupported modifier in substitution');
    const alternative = this.#until('}');
    this.#at++;
    const isSet = modifier.startsWith(':') ? value !== undefined && value !== '' : value !== undefined;
    switch (modifier.at(-1)) {
      case '-':
        return isSet ? value! : alternative;
      case '+':
        return isSet ? alternative : '';
      case '?':
        if (!isSet) throw bad(this.#source, `${name}: ${alternative || 'not allowed to be unset'}`);
        return value!;
      default:
        return value ?? '';
    }
  }
}
