import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

it('the formula for Homebrew has the checksum of the released file, and every block is closed', () => {
  const tool = fileURLToPath(new URL('formula.mjs', import.meta.url));
  const { stdout } = spawnSync(
    process.execPath,
    [tool, tool, 'https://example.org/x.tgz', 'https://example.org'],
    {
      encoding: 'utf8',
    },
  );
  const sha256 = createHash('sha256').update(readFileSync(tool)).digest('hex');
  expect(stdout).toContain(`url "https://example.org/x.tgz"\n  sha256 "${sha256}"\n`);
  const opened = stdout.match(/^ *(class|def|service do|test do)\b/gm)!.length;
  expect(stdout.match(/^ *end$/gm)).toHaveLength(opened);
  expect(stdout).toContain('run [opt_bin/"drydock", "daemon",');
});
