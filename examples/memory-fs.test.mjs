// Uses the file system of memory-fs.mjs as any program uses files.
import assert from 'node:assert/strict';
import { execFileSync, fork } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rmdir,
  stat,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

test('files in memory behave as files', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'memory-fs-'));
  const server = fork(new URL('memory-fs.mjs', import.meta.url), [folder]);
  await once(server, 'message');
  await mkdir(join(folder, 'logbook'));
  await writeFile(join(folder, 'logbook/monday'), 'calm');
  await appendFile(join(folder, 'logbook/monday'), ', then wind');
  await rename(join(folder, 'logbook/monday'), join(folder, 'logbook/tuesday'));
  assert.deepEqual(await readdir(join(folder, 'logbook')), ['tuesday']);
  assert.equal(await readFile(join(folder, 'logbook/tuesday'), 'utf8'), 'calm, then wind');
  assert.equal((await stat(join(folder, 'logbook/tuesday'))).size, 15);
  execFileSync('umount', [folder]);
  const [code] = await once(server, 'exit');
  assert.equal(code, 0);
  assert.deepEqual(await readdir(folder), []);
  await rmdir(folder);
});
