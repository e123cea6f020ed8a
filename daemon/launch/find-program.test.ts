import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { environment, findProgram } from './find-program.ts';

const folder = mkdtempSync(join(tmpdir(), 'drydock-program-'));
beforeAll(() => {
  for (const name of ['first', 'second']) mkdirSync(join(folder, name));
  mkdirSync(join(folder, 'first/tool'));
  writeFileSync(join(folder, 'first/plain'), '');
  writeFileSync(join(folder, 'second/tool'), '#!/bin/sh\n');
  chmodSync(join(folder, 'second/tool'), 0o755);
});
afterAll(() => rmSync(folder, { recursive: true }));

const env = [`PATH=:${folder}/first:${folder}/second`];

describe('finding a program', () => {
  it('passes over folders and files that are not executable', () => {
    expect(findProgram('tool', env)).toBe(`${folder}/second/tool`);
  });

  it('takes the last PATH of the environment, and none for none', () => {
    expect(findProgram('tool', ['PATH=/nowhere', ...env])).toBe(`${folder}/second/tool`);
    expect(() => findProgram('tool', [])).toThrow('exec: "tool": executable file not found in $PATH');
  });

  it.each([
    ['plain', 'program-not-found', 'exec: "plain": executable file not found in $PATH'],
    ['', 'program-not-found', 'exec: "": executable file not found in $PATH'],
    [`${folder}/first/plain`, 'program-not-permitted', 'permission denied'],
    [`${folder}/first/tool`, 'program-not-permitted', 'is a directory'],
    [
      `${folder}/first/missing`,
      'program-not-found',
      `stat ${folder}/first/missing: no such file or directory`,
    ],
    [`${folder}/first/plain/x`, 'program-not-found', 'not a directory'],
  ])('%j fails as runc does', (name, kind, message) => {
    expect(() => findProgram(name, env)).toThrow(
      expect.objectContaining({ kind, message: expect.stringContaining(message) }),
    );
  });
});

describe('the environment', () => {
  const identity = { uid: 1, gid: 1, groups: [], home: '/home/x' };
  it('gets HOME only when there is none', () => {
    expect(environment(['A=1'], identity)).toEqual(['A=1', 'HOME=/home/x']);
    expect(environment(['HOME='], identity)).toEqual(['HOME=/home/x']);
    expect(environment(['HOME=/other'], identity)).toEqual(['HOME=/other']);
  });
});
