// Images to load: docker archives whose layers compress as half of most layers' contents do.
import { execFileSync } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const FILES_OF_LAYER = 50;

/** Writes an archive of `layers` layers of `mib` MiB each to `path`; half of the bytes are random, half zero. */
export function archive(bench, path, { name, layers, mib }) {
  const tree = bench.at('tree');
  mkdirSync(tree);
  const bytes = Buffer.alloc(mib << 20);
  const names = [];
  for (let i = 0; i < layers; i++) {
    randomFillSync(bytes.subarray(0, bytes.length / 2));
    const layer = join(tree, `layer${i}`);
    mkdirSync(layer);
    const size = Math.floor(bytes.length / FILES_OF_LAYER);
    for (let f = 0; f < FILES_OF_LAYER; f++)
      writeFileSync(join(layer, `f${i}-${f}`), bytes.subarray(f * size, (f + 1) * size));
    execFileSync('tar', ['-C', layer, '-cf', join(tree, `${i}.tar`), '.']);
    rmSync(layer, { recursive: true });
    names.push(`${i}.tar`);
  }
  const digest = (file) =>
    `sha256:${execFileSync('sha256sum', [join(tree, file)])
      .toString()
      .slice(0, 64)}`;
  const config = {
    architecture: process.arch === 'x64' ? 'amd64' : process.arch,
    os: 'linux',
    config: {},
    rootfs: { type: 'layers', diff_ids: names.map(digest) },
  };
  writeFileSync(join(tree, 'config.json'), JSON.stringify(config));
  writeFileSync(
    join(tree, 'manifest.json'),
    JSON.stringify([{ Config: 'config.json', RepoTags: [`${name}:latest`], Layers: names }]),
  );
  execFileSync('tar', ['-C', tree, '-cf', path, 'config.json', 'manifest.json', ...names]);
  rmSync(tree, { recursive: true });
}
