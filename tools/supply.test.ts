import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

const root = new URL('../', import.meta.url);
const read = (path: string): string => readFileSync(new URL(path, root), 'utf8');

interface Component {
  name: string;
  version: string;
  licenses?: { license?: { id?: string; name?: string }; expression?: string }[];
}

/** As npm tells it from what is installed; without those of development, which nobody gets. */
function components(): Component[] {
  const args = ['sbom', '--sbom-format', 'cyclonedx', '--omit', 'dev'];
  const text = execFileSync('npm', args, { cwd: root, encoding: 'utf8', stdio: 'pipe', maxBuffer: 1 << 24 });
  const { bomFormat, components: found } = JSON.parse(text) as { bomFormat: string; components: Component[] };
  expect(bomFormat).toBe('CycloneDX');
  return found;
}

/** Licences that ask for no more than to be told of. */
const ALLOWED = ['0BSD', 'Apache-2.0', 'BSD-2-Clause', 'BSD-3-Clause', 'ISC', 'MIT'];

it('every dependency has a licence that allows its use, and there are few', () => {
  const found = components();
  expect(found.length).toBeLessThan(70);
  for (const { name, licenses = [] } of found) {
    const [{ license, expression } = {}] = licenses;
    const words = (expression ?? license?.id ?? license?.name ?? 'none')
      .split(/[()\s]+|\bAND\b|\bOR\b/)
      .filter(Boolean);
    expect(words.length, name).toBeGreaterThan(0);
    for (const word of words) expect(ALLOWED, `${name}: ${word}`).toContain(word);
  }
});

it('no dependency needs a script at its installation: those that have one are told to leave it out', () => {
  const { packages } = JSON.parse(read('package-lock.json')) as {
    packages: Record<string, { hasInstallScript?: boolean; dev?: boolean }>;
  };
  const { allowScripts } = JSON.parse(read('package.json')) as { allowScripts: Record<string, boolean> };
  for (const [path, { hasInstallScript }] of Object.entries(packages))
    if (hasInstallScript && !path.includes('fsevents'))
      expect(allowScripts[path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length)], path).toBe(
        false,
      );
});

it('the lock has the digest of every package, and no address', () => {
  const { packages } = JSON.parse(read('package-lock.json')) as {
    packages: Record<string, { integrity?: string; resolved?: string; link?: boolean }>;
  };
  for (const [path, { integrity, resolved, link }] of Object.entries(packages)) {
    if (path === '' || link) continue;
    expect(integrity, path).toMatch(/^sha512-/);
    expect(resolved, path).toBeUndefined();
  }
});

it('two packs of the same tree are the same bytes', () => {
  const pack = (): unknown => {
    const args = ['pack', '--dry-run', '--json', '--ignore-scripts'];
    const [{ shasum, integrity, entryCount } = {}] = JSON.parse(
      execFileSync('npm', args, { cwd: root, encoding: 'utf8', stdio: 'pipe' }),
    ) as [Record<string, unknown>?];
    return { shasum, integrity, entryCount };
  };
  const first = pack();
  expect(first).toHaveProperty('shasum', expect.stringMatching(/^[0-9a-f]{40}$/));
  expect(pack()).toEqual(first);
});
