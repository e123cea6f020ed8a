/** `drydock doctor --probe`: asks a Mac what only a Mac knows. */
import { arch, release } from 'node:os';
import { errorMessage } from '#common/errors';
import type { Bench } from './bench.ts';
import { type Answer, QUESTIONS } from './questions.ts';

export { thisMac } from './bench.ts';

/** An answer with its question. */
export interface ProbeAnswer extends Answer {
  probe: string;
  question: string;
}

/** All answers, with what they are about. */
export interface ProbeReport {
  system: string;
  kernel: string;
  arch: string;
  integrityProtection: string;
  isRoot: boolean;
  answers: ProbeAnswer[];
}

/** Asks everything, one after the other. A probe that fails answers `unknown` with the reason. */
export async function askAll(bench: Bench): Promise<ProbeReport> {
  const line = async (program: string, args: string[]): Promise<string> =>
    (await bench.run(program, args)).stdout.trim().replaceAll(/\s+/g, ' ');
  const answers: ProbeAnswer[] = [];
  for (const { probe, question, ask } of QUESTIONS) {
    const answer = await ask(bench).catch(
      (error: unknown): Answer => ({ answer: 'unknown', detail: errorMessage(error) }),
    );
    answers.push({ probe, question, ...answer });
  }
  return {
    system: await line('sw_vers', []),
    kernel: release(),
    arch: arch(),
    integrityProtection: await line('csrutil', ['status']),
    isRoot: process.getuid?.() === 0,
    answers,
  };
}
