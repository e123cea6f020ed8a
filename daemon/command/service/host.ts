/** What `drydock service` does to the machine. Tests give a machine of their own making. */
import { spawnSync } from 'node:child_process';
import { lstatSync, mkdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname } from 'node:path';
import { compiledEntry } from '#common/entry';
import { requirements } from '../../platform.ts';

/** What a program left. */
export interface RanProgram {
  /** Exit code; undefined when it could not be started. */
  status: number | undefined;
  stdout: string;
  stderr: string;
}

/** The machine. */
export interface ServiceHost {
  platform: NodeJS.Platform;
  uid: number;
  home: string;
  env: Readonly<Record<string, string | undefined>>;
  /** Node and the program's entry, absolute. */
  node: string;
  program: string;
  /** What the daemon lacks here, and what to do about it. @param user whether it is to be a user's */
  missing(user: boolean): string[];
  /** What is at `path`: a file's text, where a link leads, or that there is something else. */
  look(path: string): { kind: 'file' | 'link' | 'other'; text: string } | undefined;
  write(path: string, text: string): void;
  /** Removes a file or a folder with all that is in it; nothing when there is none. */
  remove(path: string): void;
  run(command: readonly string[]): RanProgram;
  /** The same with the terminal's own streams. Returns the exit code. */
  show(command: readonly string[]): number | undefined;
}

/** This machine. */
export function thisServiceHost(): ServiceHost {
  return {
    platform: process.platform,
    uid: process.getuid?.() ?? -1,
    home: homedir(),
    env: process.env,
    node: process.execPath,
    program: compiledEntry('daemon/bin'),
    missing: (user) =>
      requirements()
        .filter(({ met, isRoot }) => !met && !(user && isRoot))
        .map(({ remedy }) => remedy),
    look(path) {
      const found = lstatSync(path, { throwIfNoEntry: false });
      if (!found) return undefined;
      if (found.isSymbolicLink()) return { kind: 'link', text: readlinkSync(path) };
      return found.isFile()
        ? { kind: 'file', text: readFileSync(path, 'utf8') }
        : { kind: 'other', text: '' };
    },
    write(path, text) {
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, text, { mode: 0o644 });
    },
    remove: (path) => rmSync(path, { recursive: true, force: true }),
    run([program = '', ...args]) {
      const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8' });
      return { status: status ?? undefined, stdout: stdout ?? '', stderr: error?.message ?? stderr };
    },
    show([program = '', ...args]) {
      return spawnSync(program, args, { stdio: 'inherit' }).status ?? undefined;
    },
  };
}
