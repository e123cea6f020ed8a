/** The stages of a Dockerfile, and which of them need which. Pure functions. */
import { DrydockError } from '#common/errors';
import { dockerfileError, type Instruction } from './dockerfile.ts';
import { parseMountFlag } from './mounts.ts';

/** One stage as it is written. */
export interface StagePlan {
  index: number;
  /** In small letters; empty without AS. */
  name: string;
  from: Instruction;
  /** What FROM names, not expanded. */
  base: string;
  instructions: Instruction[];
}

/** A Dockerfile's stages up to the target, and the ARGs before the first. */
export interface BuildPlan {
  globals: Instruction[];
  stages: StagePlan[];
}

/**
 * Cuts a Dockerfile at its FROMs. The last stage is the target; the labels of the command line are its last instruction.
 * @throws ERR_BAD_DOCKERFILE
 */
export function planStages(
  instructions: readonly Instruction[],
  target: string,
  labels: Readonly<Record<string, string>>,
): BuildPlan {
  const starts = instructions.flatMap((each, index) => (each.name === 'FROM' ? [index] : []));
  if (starts.length === 0) throw new DrydockError('ERR_BAD_DOCKERFILE', 'No build stage in current context');
  const globals = instructions.slice(0, starts[0]);
  const early = globals.find((each) => each.name !== 'ARG');
  if (early) throw dockerfileError(early.line, 'no build stage in current context');
  let stages = starts.map((start, index) =>
    planStage(instructions.slice(start, starts[index + 1] ?? instructions.length), index),
  );
  if (target !== '') {
    const at = stages.findIndex(
      ({ name, index }) => name === target.toLowerCase() || String(index) === target,
    );
    if (at < 0)
      throw new DrydockError('ERR_BAD_DOCKERFILE', `failed to reach build target ${target} in Dockerfile`);
    stages = stages.slice(0, at + 1);
  }
  const pairs = Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1));
  if (pairs.length > 0) {
    const text = pairs.map(([key, value]) => `${quoted(key)}=${quoted(value)}`).join(' ');
    const line = instructions.at(-1)!.line;
    stages
      .at(-1)!
      .instructions.push({ name: 'LABEL', flags: [], text, heredocs: [], original: `LABEL ${text}`, line });
  }
  return { globals: [...globals], stages };
}

const quoted = (text: string): string => `"${text.replace(/(["\\$])/g, '\\$1').replaceAll('\n', '\\\n')}"`;

function planStage([from, ...instructions]: Instruction[], index: number): StagePlan {
  const match = /^(\S+)(?:\s+AS\s+(\S+))?$/i.exec(from!.text);
  if (!match) throw dockerfileError(from!.line, 'FROM requires either one or three arguments');
  const name = (match[2] ?? '').toLowerCase();
  if (name !== '' && !/^[a-z][a-z0-9-_.]*$/.test(name))
    throw dockerfileError(
      from!.line,
      `invalid name for build stage: ${JSON.stringify(match[2])}, name can't start with a number or contain symbols`,
    );
  return { index, name, from: from!, base: match[1]!, instructions };
}

/** The stage before `current` that a name or number means. */
export function findStage(
  stages: readonly StagePlan[],
  reference: string,
  current: StagePlan,
): StagePlan | undefined {
  if (reference === '') return undefined;
  return stages
    .slice(0, current.index)
    .findLast(({ name, index }) => name === reference.toLowerCase() || String(index) === reference);
}

/** The stages that a stage names in its text, so that they may be begun before they are needed. */
export function dependenciesOf(stages: readonly StagePlan[], stage: StagePlan): StagePlan[] {
  const named = [stage.base];
  for (const { name, flags } of stage.instructions)
    for (const [flag, value] of flags) {
      if (flag === 'from') named.push(value);
      if (flag === 'mount' && name === 'RUN') named.push(parseMountFlag(value).from ?? '');
    }
  const found = named.flatMap((reference) => findStage(stages, reference, stage) ?? []);
  return [...new Set(found)];
}
