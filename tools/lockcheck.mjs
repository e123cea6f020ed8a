// `npm ci` on another platform fails when the lock lacks that platform's optional packages, and a lock that
// records download addresses ties everybody to one registry. Both are checked here, since npm does neither.
import { readFileSync } from 'node:fs';

const lock = JSON.parse(readFileSync(new URL('../package-lock.json', import.meta.url), 'utf8'));
const problems = [];
for (const [path, entry] of Object.entries(lock.packages)) {
  if (entry.resolved) problems.push(`${path}: records a download address`);
  for (const name of Object.keys(entry.optionalDependencies ?? {})) {
    const nested = `${path}/node_modules/${name}`;
    if (!lock.packages[nested] && !lock.packages[`node_modules/${name}`])
      problems.push(`${path}: ${name} is missing`);
  }
}
if (problems.length > 0) {
  console.error(`package-lock.json:\n  ${problems.join('\n  ')}`);
  process.exit(1);
}
console.log(`package-lock.json: ${Object.keys(lock.packages).length} packages, complete for every platform`);
