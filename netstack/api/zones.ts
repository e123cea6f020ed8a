/**
 * Zones between their three forms: gvproxy's API (Go's field names), the configuration file, and the resolver's table.
 */
import { DrydockError } from '#common/errors';
import { compilePattern, type ZoneConfig } from '../config.ts';
import { isValidName, type Zone } from '../service/dns/names.ts';
import { formatAddress, parseAddress } from '../wire/address.ts';

/** Most records taken in one request. */
export const ZONE_RECORDS_MAX = 4096;

/** A zone as gvproxy's API shows and takes it. */
export interface ApiZone {
  Name: string;
  Records: { Name?: string; IP: string; Regexp?: string }[] | null;
  DefaultIP: string;
}

function invalid(what: string): DrydockError {
  return new DrydockError('ERR_ZONE_INVALID', what);
}

function requireAddress(text: unknown, what: string): Uint8Array {
  const address = typeof text === 'string' ? parseAddress(text) : undefined;
  if (!address) throw invalid(`${what} has "${text}", which is no IP address.`);
  return address;
}

/** @throws DrydockError ERR_NET_CONFIG_INVALID */
export function zoneOfConfig(config: ZoneConfig): Zone {
  return {
    name: config.name,
    records: config.records.map(({ name, regexp, ip }) => ({
      address: requireAddress(ip, config.name),
      ...(name !== undefined && { name: name.toLowerCase() }),
      ...(regexp !== undefined && { pattern: compilePattern(regexp, config.name) }),
    })),
    ...(config.defaultIP !== undefined && { defaultAddress: requireAddress(config.defaultIP, config.name) }),
  };
}

/**
 * Reads a zone that a client sends; field names in any case, as Go's decoder takes them.
 * @throws DrydockError ERR_ZONE_INVALID
 */
export function zoneOfApi(value: unknown): Zone {
  const fields = lowerKeys(value, 'The zone');
  const { name, records = [], defaultip } = fields;
  if (typeof name !== 'string' || !isValidName(name))
    throw invalid('The zone has no Name, or one that is too long for DNS.');
  if (records !== null && !Array.isArray(records)) throw invalid(`Records of ${name} is no list.`);
  if ((records?.length ?? 0) > ZONE_RECORDS_MAX)
    throw invalid(`${name} has more than ${ZONE_RECORDS_MAX} records.`);
  return zoneOfConfig({
    name,
    records: ((records ?? []) as unknown[]).map((record) => {
      const entry = lowerKeys(record, `A record of ${name}`);
      const { ip, regexp } = entry;
      if (entry.name !== undefined && typeof entry.name !== 'string')
        throw invalid(`A Name in ${name} is no text.`);
      if (regexp !== undefined && regexp !== null && typeof regexp !== 'string')
        throw invalid(`A Regexp in ${name} is no text.`);
      if (typeof ip !== 'string') throw invalid(`A record of ${name} has no IP.`);
      return {
        ip,
        // As in Go, an empty Name is none.
        ...(entry.name ? { name: entry.name } : {}),
        ...(typeof regexp === 'string' && regexp !== '' && { regexp }),
      };
    }),
    ...(typeof defaultip === 'string' && defaultip !== '' && { defaultIP: defaultip }),
  });
}

function lowerKeys(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid(`${what} is no object.`);
  return Object.fromEntries(Object.entries(value).map(([key, element]) => [key.toLowerCase(), element]));
}

/** The zone as the API shows it: its name with the final dot. */
export function zoneToApi(zone: Zone): ApiZone {
  return {
    Name: `${zone.name}.`,
    Records: zone.records.map(({ name, pattern, address }) => ({
      ...(name !== undefined && { Name: name }),
      IP: formatAddress(address, 0),
      ...(pattern && { Regexp: pattern.source }),
    })),
    DefaultIP: zone.defaultAddress ? formatAddress(zone.defaultAddress, 0) : '',
  };
}
