/** From a container's log options to its log. */
import type { Clock } from '#common/clock';
import type { Log } from '#common/log';
import { goBool } from '../go-text.ts';
import { ContainerLog, logAttributes } from './logs.ts';
import type { ContainerRecord } from './types.ts';
import { sizeBytes } from './validate.ts';

/** A file of the driver `local` when no size is asked for: 20 MiB. */
const LOCAL_LOG_SIZE = `${20 << 20}`;

/** The log of a container; undefined for the driver `none`. */
export function newLog(
  record: ContainerRecord,
  path: string,
  clock: Clock,
  log: Log,
): ContainerLog | undefined {
  const { Type, Config = {} } = record.hostConfig.LogConfig ?? {};
  if (Type === 'none') return undefined;
  const local = Type === 'local';
  const size = Config['max-size'] ?? (local ? LOCAL_LOG_SIZE : undefined);
  return new ContainerLog(
    path,
    {
      // The log drivers read their sizes as disks are sold, the buffer's as memory is (moby's daemon/logger).
      sizeMax: size === undefined ? Number.POSITIVE_INFINITY : sizeBytes(size, 1000),
      filesMax: Number(Config['max-file'] ?? (local ? 5 : 1)),
      compress: goBool(Config.compress ?? String(local)) === true,
      ...(Config.mode === 'non-blocking' && { bufferMax: sizeBytes(Config['max-buffer-size'] ?? '1m') }),
      attributes: logAttributes(Config, {
        id: record.id,
        name: record.name,
        labels: record.config.Labels ?? {},
        env: record.config.Env ?? [],
      }),
    },
    clock,
    log,
  );
}
