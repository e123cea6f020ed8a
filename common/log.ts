/** The part of pino's interface that Drydock uses, so that the parts need not know pino. */
export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
  child(bindings: Record<string, unknown>): Log;
}

/** A log that keeps nothing. */
export const nullLog: Log = {
  debug() {},
  info() {},
  warn() {},
  error() {},
  child: () => nullLog,
};
