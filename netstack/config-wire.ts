/**
 * The part of a network's configuration about what happens on guests' wires: faults, captures, and multicast that goes
 * out. Quantities are texts with units, as on the command line; the functions here are pure.
 */
import { DrydockError } from '#common/errors';
import { compileFilter } from './link/capture-filter.ts';
import { checkFaults, type FaultOptions } from './link/faults.ts';
import { type CaptureOptions, checkCapture } from './link/pcap.ts';
import { requireGroups } from './plan.ts';
import { parseChance, parseDurationMs, parseSizeBytes } from './units.ts';

/** `stack.faults` of a file: chances like `5%`, durations like `20ms`. */
export interface FaultsFile {
  drop?: string;
  delay?: string;
  jitter?: string;
  reorder?: string;
  duplicate?: string;
  corrupt?: string;
  seed?: number;
}

/** The keys `stack.capture-…` of a file. */
export interface CaptureFile {
  'capture-file'?: string;
  'capture-filter'?: string;
  'capture-size'?: string;
  'capture-files'?: number;
  'capture-snaplen'?: number;
}

const MULTICAST_ALL: readonly string[] = ['mdns', 'ssdp'];

function invalid(message: string, cause?: unknown): DrydockError {
  return new DrydockError('ERR_NET_CONFIG_INVALID', message, { cause });
}

/** Reads a quantity, or names its key and its flag. */
function quantity(
  text: string,
  parse: (text: string) => number | undefined,
  place: string,
  wanted: string,
): number {
  const value = parse(text);
  if (value === undefined) throw invalid(`${place} is "${text}", ${wanted}.`);
  return value;
}

/**
 * What goes wrong on guests' wires; undefined: nothing.
 * @throws DrydockError ERR_NET_CONFIG_INVALID
 */
export function resolveFaults(file: FaultsFile = {}): FaultOptions | undefined {
  const { seed } = file;
  const options: FaultOptions = {};
  for (const key of ['drop', 'reorder', 'duplicate', 'corrupt'] as const) {
    const text = file[key];
    if (text === undefined) continue;
    const place = `stack.faults.${key} (--${key})`;
    options[key] = quantity(text, parseChance, place, 'no chance from 0 to 1 like 5% or 0.05');
  }
  for (const key of ['delay', 'jitter'] as const) {
    const text = file[key];
    if (text === undefined) continue;
    const place = `stack.faults.${key} (--${key})`;
    options[`${key}Ms`] = quantity(text, parseDurationMs, place, 'no duration like 20ms, 1.5s or 500us');
  }
  if (Object.keys(options).length === 0) {
    if (seed === undefined) return undefined;
    throw invalid(
      'stack.faults.seed (--fault-seed) does nothing by itself. Give a fault too, like --drop 5%.',
    );
  }
  if (seed !== undefined) options.seed = seed;
  const fault = checkFaults(options);
  if (fault !== undefined) throw invalid(`stack.faults: ${fault}`);
  return Object.entries(options).some(([key, value]) => key !== 'seed' && value > 0) ? options : undefined;
}

/**
 * The capture that runs as long as the network; undefined: none.
 * @throws DrydockError ERR_NET_CONFIG_INVALID, ERR_FILTER_INVALID, ERR_CAPTURE_OPTIONS
 */
export function resolveCapture(file: CaptureFile): CaptureOptions | undefined {
  const {
    'capture-file': path,
    'capture-filter': filter,
    'capture-size': size,
    'capture-files': files,
    'capture-snaplen': snapLen,
  } = file;
  if (path === undefined) {
    if ((filter ?? size ?? files ?? snapLen) === undefined) return undefined;
    throw invalid(
      'stack.capture-filter, -size, -files and -snaplen (--pcap-filter, --pcap-size, --pcap-files, --pcap-snaplen) do nothing ' +
        'without stack.capture-file (--pcap). Name the file.',
    );
  }
  if (files !== undefined && size === undefined)
    throw invalid(
      'stack.capture-files (--pcap-files) does nothing without a size at which files are changed. Give ' +
        'stack.capture-size (--pcap-size) too, like 10M.',
    );
  if (filter !== undefined) compileFilter(filter);
  const options: CaptureOptions = {
    path,
    ...(filter !== undefined && { filter }),
    ...(files !== undefined && { files }),
    ...(snapLen !== undefined && { snapLen }),
    ...(size !== undefined && {
      rotateBytes: quantity(
        size,
        parseSizeBytes,
        'stack.capture-size (--pcap-size)',
        'no size like 65536, 64K or 10M',
      ),
    }),
  };
  checkCapture(options);
  return options;
}

/**
 * Groups that go out to the host's network: `all` stands for those that have names.
 * @throws DrydockError ERR_ADDRESS_INVALID
 */
export function resolveMulticast(groups: readonly string[] = []): string[] {
  const named = new Set(groups.flatMap((group) => (group === 'all' ? MULTICAST_ALL : [group])));
  for (const group of named) requireGroups(group);
  return [...named];
}
