import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { checkExported } from './exports.ts';

describe('the list of shared folders', () => {
  let base: string;
  const at = (...names: string[]): string => join(base, ...names);
  beforeEach(() => {
    base = realpathSync(mkdtempSync(join(tmpdir(), 'drydock-exports-')));
    mkdirSync(at('shared', 'deep'), { recursive: true });
    mkdirSync(at('shared-not'));
    symlinkSync('../shared-not', at('shared', 'out'));
    symlinkSync('shared', at('alias'));
  });
  afterEach(() => rmSync(base, { recursive: true, force: true }));

  it('an empty list shares everything', async () => {
    await checkExported('/', []);
  });

  it.each(['shared', 'shared/deep', 'shared/not/yet/there', 'alias/deep'])(
    'lets %s through',
    async (path) => {
      await checkExported(at(path), ['/nowhere', at('shared')]);
      await checkExported(at(path), [at('alias')]);
      await checkExported(at(path), ['/']);
    },
  );

  it.each(['shared-not', 'shared/out', 'shared/out/new', 'shared/../shared-not', ''])(
    'refuses "%s"',
    async (path) => {
      const denied = { code: 'ERR_FS_NOT_EXPORTED', message: expect.stringContaining('not shared') };
      await expect(checkExported(at(path), [at('shared')])).rejects.toMatchObject(denied);
    },
  );
});
