/** What of a Dockerfile is built, and in which words: target stage, labels of the command line, flags, scripts. Pure functions. */
import { DrydockError } from '#common/errors';
import { digestOf } from '../image/content.ts';
import { dockerfileError, type Instruction } from './dockerfile.ts';

/** The flags that each instruction has here; further ones are BuildKit's. */
const ACCEPTED_FLAGS: Record<string, string[]> = {
  FROM: ['platform'],
  COPY: ['from', 'chown', 'chmod'],
  ADD: ['chown', 'chmod'],
  RUN: [],
};

/** The instructions up to the target stage, with the labels of the command line as the last. */
export function selectInstructions(
  instructions: readonly Instruction[],
  target: string,
  labels: Record<string, string>,
): Instruction[] {
  const starts = instructions.flatMap((each, index) => (each.name === 'FROM' ? [index] : []));
  if (starts.length === 0) throw new DrydockError('ERR_BAD_DOCKERFILE', 'No build stage in current context');
  const early = instructions.slice(0, starts[0]).find((each) => each.name !== 'ARG');
  if (early) throw dockerfileError(early.line, 'no build stage in current context');
  let selected = [...instructions];
  if (target !== '') {
    const at = starts.findIndex(
      (start, index) =>
        stageName(instructions[start]!)?.toLowerCase() === target.toLowerCase() || String(index) === target,
    );
    if (at < 0)
      throw new DrydockError('ERR_BAD_DOCKERFILE', `failed to reach build target ${target} in Dockerfile`);
    selected = instructions.slice(0, starts[at + 1] ?? instructions.length);
  }
  const pairs = Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1));
  if (pairs.length === 0) return selected;
  const text = pairs.map(([key, value]) => `${quoted(key)}=${quoted(value)}`).join(' ');
  const line = instructions.at(-1)!.line;
  return [...selected, { name: 'LABEL', flags: [], text, heredocs: [], original: `LABEL ${text}`, line }];
}

/** Refuses flags that this builder can't honour. @throws ERR_BAD_DOCKERFILE */
export function checkFlags({ name, flags }: Instruction): void {
  for (const [flag] of flags) {
    if (ACCEPTED_FLAGS[name]?.includes(flag)) continue;
    throw new DrydockError(
      'ERR_BAD_DOCKERFILE',
      `the --${flag} option of ${name} is not supported by this daemon: leave it out.`,
    );
  }
}

const quoted = (text: string): string => `"${text.replace(/(["\\$])/g, '\\$1').replaceAll('\n', '\\\n')}"`;

function stageName(from: Instruction): string | undefined {
  return /\s+AS\s+(\S+)$/i.exec(from.text)?.[1];
}

/** The shell's text for RUN with its here-documents. */
export function scriptOf({ text, heredocs }: Instruction): string {
  const [first] = heredocs;
  if (!first) return text;
  const bodies = heredocs.map(({ name, content }) => `${content}${name}`).join('\n');
  if (!/^<<-?\S+$/.test(text.trim())) return `${text}\n${bodies}`;
  if (!first.content.startsWith('#!')) return first.content;
  // A script for another interpreter: written down, run, and removed before the layer is made.
  const end = `DRYDOCK_${digestOf(first.content).slice(7, 23)}`;
  return `f=$(mktemp) && cat > "$f" <<'${end}'\n${first.content}${end}\nchmod 700 "$f" && "$f"; e=$?; rm -f "$f"; exit $e`;
}
