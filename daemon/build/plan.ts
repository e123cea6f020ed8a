/** What single instructions mean: their flags, and RUN's scripts. Pure functions. */
import { DrydockError } from '#common/errors';
import { digestOf } from '../image/content.ts';
import type { Instruction } from './dockerfile.ts';

/** The flags that each instruction has. */
const ACCEPTED_FLAGS: Record<string, string[]> = {
  FROM: ['platform'],
  COPY: ['from', 'chown', 'chmod', 'link', 'parents', 'exclude'],
  ADD: ['chown', 'chmod', 'link', 'exclude', 'checksum', 'keep-git-dir', 'unpack'],
  RUN: ['mount', 'network', 'security'],
};

/** The instructions that BuildKit's clients show as steps; the others only change the configuration. */
const SHOWN = new Set(['FROM', 'RUN', 'COPY', 'ADD', 'WORKDIR']);

/** Whether clients show an instruction as a step. */
export const isShown = ({ name }: Instruction): boolean => SHOWN.has(name);

/** Refuses flags that an instruction has not. @throws ERR_BAD_DOCKERFILE */
export function checkFlags({ name, flags }: Instruction): void {
  for (const [flag] of flags) {
    if (ACCEPTED_FLAGS[name]?.includes(flag)) continue;
    throw new DrydockError(
      'ERR_BAD_DOCKERFILE',
      `unknown flag: --${flag} (of ${name}): this daemon has none of this name`,
    );
  }
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
