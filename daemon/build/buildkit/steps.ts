/** The builder's steps as vertices of a trace. */
import { DrydockError, errorMessage } from '#common/errors';
import { type BuildObserver, BuildRunError, type StepPosition, type StepSink } from '../options.ts';
import type { Trace } from './trace.ts';

/** Shows each step as `[stage 2/5] RUN ...`. */
export function traceSteps(trace: Trace): BuildObserver {
  return {
    begin({ original }, { stage, index, total }: StepPosition): StepSink {
      const step = trace.begin(`[${stage === '' ? '' : `${stage} `}${index}/${total}] ${original}`);
      let isCached = false;
      return {
        log: (text) => step.log(text),
        status: (line) => step.status(line),
        cached() {
          isCached = true;
        },
        end: () => step.end({ cached: isCached }),
        fail: (error) => step.end({ error: errorMessage(inBuildKitsWords(error)) }),
      };
    },
  };
}

/** BuildKit says of a failed command what it was; clients print just that. */
export function inBuildKitsWords(error: unknown): Error {
  if (error instanceof BuildRunError)
    return new DrydockError(
      'ERR_BUILD',
      `process ${JSON.stringify(error.command.join(' '))} did not complete successfully: exit code: ${error.exitCode}`,
    );
  return error instanceof Error ? error : new Error(String(error));
}
