/** The rules by which daemon.json keeps the build cache small (`builder.gc`, moby: builder/builder-next/worker/gc.go). Pure. */
import { DrydockError } from '#common/errors';
import { goDurationNs, goSize } from '../go-text.ts';
import { CACHE_FILTERS } from './cache-filters.ts';

/** One rule. */
export interface GcRule {
  /** As `docker builder prune --filter` has them; each must hold. */
  filters: Record<string, string[]>;
  /** Also what images with a name were made from. */
  all: boolean;
  /** The cache may have so much. */
  keepBytes: number;
}

type Fields = Record<string, unknown>;

function invalid(message: string): DrydockError {
  return new DrydockError('ERR_BAD_CONFIG', `builder: ${message}`);
}

function only(value: unknown, what: string, known: readonly string[]): Fields {
  if (value === null || typeof value !== 'object' || Array.isArray(value))
    throw invalid(`${what} must be an object`);
  const other = Object.keys(value).find((name) => !known.includes(name));
  if (other !== undefined)
    throw invalid(`${other} of ${what} is not supported: there are ${known.join(', ')}`);
  return value as Fields;
}

/** A size by its name of today or the older one; both mean the same. */
function size(fields: Fields, names: readonly string[]): number {
  const text = names.map((name) => fields[name]).find((value) => value !== undefined) ?? '';
  const bytes = text === '' ? 0 : goSize(String(text));
  if (bytes === undefined || bytes < 0) throw invalid(`invalid size: '${text}'`);
  return bytes;
}

/** `["unused-for=48h"]`, or `{"unused-for": {"48h": true}}` as the daemon itself writes it. */
function filtersOf(value: unknown): Record<string, string[]> {
  const entries = Array.isArray(value)
    ? value.map((text) => String(text).split(/=(.*)/s, 2) as [string, string?])
    : Object.entries(only(value ?? {}, 'filter', [...CACHE_FILTERS])).flatMap(([name, values]) =>
        Object.keys((values ?? {}) as object).map((text): [string, string] => [name, text]),
      );
  const filters: Record<string, string[]> = {};
  for (const [name, text = ''] of entries) {
    if (!CACHE_FILTERS.has(name)) throw invalid(`invalid filter '${name}'`);
    if ((name === 'until' || name === 'unused-for') && goDurationNs(text) === undefined)
      throw invalid(`invalid duration '${text}'`);
    filters[name] = [...(filters[name] ?? []), text];
  }
  return filters;
}

/** What dockerd does where a size is given and no policy. */
function defaultRules(keepBytes: number): GcRule[] {
  return [
    { filters: { type: ['exec.cachemount'], 'unused-for': ['48h'] }, all: false, keepBytes: 512 << 20 },
    { filters: { 'unused-for': ['1440h'] }, all: false, keepBytes },
    { filters: {}, all: false, keepBytes },
    { filters: {}, all: true, keepBytes },
  ];
}

/** Reads the key `builder` of a daemon.json. @throws ERR_BAD_CONFIG */
export function gcRules(value: unknown): GcRule[] {
  const { gc, entitlements } = only(value, 'builder', ['gc', 'entitlements']);
  const { 'security-insecure': insecure } = only(entitlements ?? {}, 'entitlements', [
    'network-host',
    'security-insecure',
  ]);
  if (insecure === true)
    throw invalid('security-insecure is not supported: steps have no more rights than containers');
  const { enabled, policy, ...sizes } = only(gc ?? {}, 'gc', [
    'enabled',
    'policy',
    'defaultKeepStorage',
    'defaultReservedSpace',
  ]);
  const keepBytes = size(sizes, ['defaultReservedSpace', 'defaultKeepStorage']);
  if (enabled === false) return [];
  if (policy === undefined) return keepBytes > 0 ? defaultRules(keepBytes) : [];
  if (!Array.isArray(policy)) throw invalid('policy must be a list');
  return policy.map((each): GcRule => {
    const rule = only(each, 'a policy', ['filter', 'all', 'keepStorage', 'reservedSpace']);
    return {
      filters: filtersOf(rule.filter),
      all: rule.all === true,
      keepBytes: size(rule, ['reservedSpace', 'keepStorage']) || keepBytes,
    };
  });
}
