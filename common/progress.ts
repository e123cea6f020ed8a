/**
 * How far long work has come, on the line of a terminal that is rewritten in place and erased at the end. Anything but a terminal
 * (a pipe, a file, a service's journal, TERM=dumb) gets nothing: what was done is told by the result.
 */

/** Tells how far the work is. @param done of `total`, in whatever unit; without them only what is done now is shown */
export type Progress = (what: string, done?: number, total?: number) => void;

/** Where a bar is drawn: standard error of a process, or a double of it. */
export interface ProgressStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

/** A bar while it is shown. */
export interface ProgressLine {
  readonly report: Progress;
  /** Writes whole lines to the same stream; the bar goes on below them. */
  print(lines: string): void;
  /** Erases it; nothing is drawn after that. */
  end(): void;
}

/** Between two drawings: a terminal can't show more, and work must not wait for it. */
const REDRAW_MS = 100;
const BAR_COLUMNS = 24;
/** Of a terminal that does not tell its width. */
const COLUMNS_DEFAULT = 80;

/** The text of a bar, without what moves the cursor. */
export function progressText(
  what: string,
  done: number | undefined,
  total: number | undefined,
  columns: number,
): string {
  if (done === undefined || total === undefined) return what.slice(0, columns);
  const share = total > 0 ? Math.min(1, done / total) : 1;
  const full = Math.round(share * BAR_COLUMNS);
  const bar = `[${'#'.repeat(full)}${'.'.repeat(BAR_COLUMNS - full)}]`;
  return `${bar} ${String(Math.floor(share * 100)).padStart(3)} %  ${what}`.slice(0, columns);
}

/** Starts a line of progress. @param nowMs for tests */
export function startProgress(
  stream: ProgressStream = process.stderr,
  env: Readonly<Record<string, string | undefined>> = process.env,
  nowMs: () => number = () => performance.now(),
): ProgressLine {
  if (stream.isTTY !== true || env.TERM === 'dumb')
    return { report() {}, print: (lines) => void stream.write(lines), end() {} };
  const dim = (text: string): string => (env.NO_COLOR ? text : `\u001b[2m${text}\u001b[22m`);
  let drawnMs = Number.NEGATIVE_INFINITY;
  let isShown = false;
  let isOver = false;
  const erase = (): void => {
    if (isShown) stream.write('\r\u001b[K');
    isShown = false;
  };
  return {
    report(what, done, total) {
      if (isOver || nowMs() - drawnMs < REDRAW_MS) return;
      drawnMs = nowMs();
      isShown = true;
      stream.write(
        `\r${dim(progressText(what, done, total, (stream.columns || COLUMNS_DEFAULT) - 1))}\u001b[K`,
      );
    },
    print(lines) {
      erase();
      stream.write(lines);
    },
    end() {
      erase();
      isOver = true;
    },
  };
}
