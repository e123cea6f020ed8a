// Writes the pages of docs/reference that are made from the program: run it after a change of options or limits.
import { writeFileSync } from 'node:fs';
import { referencePage } from '../dist/daemon/command/reference.js';
import { wholeProgram } from '../dist/daemon/command/whole.js';
import { limitsPage } from './limits-page.mjs';

const root = new URL('../', import.meta.url);
const { program } = await wholeProgram();
writeFileSync(new URL('docs/reference/cli.md', root), referencePage(program));
writeFileSync(new URL('docs/reference/limits.md', root), limitsPage(root));
