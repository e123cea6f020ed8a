// Writes the pages of docs/reference that are made from the program: run it after a change of options.
import { writeFileSync } from 'node:fs';
import { referencePage } from '../dist/daemon/command/reference.js';
import { wholeProgram } from '../dist/daemon/command/whole.js';

const { program } = await wholeProgram();
writeFileSync(new URL('../docs/reference/cli.md', import.meta.url), referencePage(program));
