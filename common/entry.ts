import { fileURLToPath } from 'node:url';

const root = new URL(import.meta.url.includes('/dist/common/') ? '../../' : '../', import.meta.url);

/**
 * The path of a compiled module, for starting it as a worker thread or a process of its own. Always in dist/, since
 * Node 20 cannot run the sources: tests that start workers therefore need a build first (`npm test` makes one).
 *
 * @param module path from the project's root without extension, such as `daemon/launch/main`.
 */
export function compiledEntry(module: string): string {
  return fileURLToPath(new URL(`dist/${module}.js`, root));
}
