/**
 * Reads the console sessions of the documentation, so that a test can run them: in a ```console block a line that starts
 * with `$ ` is a command and what follows is its output. `...` in the output stands for any text.
 */

/** One command of a session and what the documentation says it prints. */
export interface Step {
  command: string;
  output: string;
}

/** All steps of the ```console blocks under the heading `heading`. */
export function consoleSteps(markdown: string, heading: string): Step[] {
  const start = markdown.indexOf(`## ${heading}`);
  if (start < 0) throw new Error(`no heading "${heading}"`);
  const next = markdown.indexOf('\n## ', start + 1);
  const section = markdown.slice(start, next < 0 ? undefined : next);
  const steps: Step[] = [];
  for (const [, block] of section.matchAll(/```console\n([\s\S]*?)```/g)) {
    for (const part of `\n${block}`.split('\n$ ').slice(1)) {
      const end = part.indexOf('\n');
      steps.push({ command: part.slice(0, end), output: part.slice(end + 1).trimEnd() });
    }
  }
  return steps;
}

/** A pattern that `output` as documented stands for: exact but for `...` and the amount of white space. */
export function outputPattern(output: string): RegExp {
  const exact = output
    .split('...')
    .map((text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replace(/\s+/g, '\\s+'))
    .join('[\\s\\S]*');
  return new RegExp(`^\\s*${exact}\\s*$`);
}
