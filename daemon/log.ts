/** The daemon's own log: lines for people on a terminal, JSON lines (pino) for machines. */
import { inspect } from 'node:util';
import { errorMessage } from '#common/errors';
import type { Log } from '#common/log';
import { plainText } from '#common/plain-text';

/** Levels of --log-level, from the most to the least talkative. */
export const LOG_LEVELS: readonly string[] = ['debug', 'info', 'warn', 'error', 'fatal'];

/** A log whose level can be changed while it is used, by SIGHUP. */
export interface DaemonLog extends Log {
  setLevel(level: string): void;
}

/** JSON lines on standard error. */
export async function jsonLog(level: string): Promise<DaemonLog> {
  // Loaded when it is wanted: this file is read for --help too.
  const { default: pino } = await import('pino');
  const logger = pino({ level, base: null }, pino.destination({ fd: 2, sync: true }));
  return Object.assign(logger as unknown as Log, {
    setLevel(next: string) {
      logger.level = next;
    },
  });
}

/** One readable line per message. */
export function textLog(level: string, write: (line: string) => void, nowMs: () => number): DaemonLog {
  const state = { least: LOG_LEVELS.indexOf(level) };
  const make = (bindings: Record<string, unknown>): Log => {
    const at = (name: string, index: number) => (fields: object, message: string) => {
      if (index < state.least) return;
      write(
        `${new Date(nowMs()).toISOString()} ${name.padEnd(5)} ${message}${describe({ ...bindings, ...fields })}\n`,
      );
    };
    return {
      debug: at('debug', 0),
      info: at('info', 1),
      warn: at('warn', 2),
      error: at('error', 3),
      child: (more) => make({ ...bindings, ...more }),
    };
  };
  return Object.assign(make({}), {
    setLevel(next: string) {
      state.least = LOG_LEVELS.indexOf(next);
    },
  });
}

function describe(fields: Record<string, unknown>): string {
  return Object.entries(fields)
    .map(([name, value]) => ` ${name}=${valueText(value)}`)
    .join('');
}

function valueText(value: unknown): string {
  if (value instanceof Error) return plainText(JSON.stringify(value.stack ?? errorMessage(value)));
  if (typeof value === 'string') return /^[\w./:@-]+$/.test(value) ? value : plainText(JSON.stringify(value));
  return plainText(inspect(value, { breakLength: Number.POSITIVE_INFINITY, depth: 3 }));
}
