/**
 * Query strings and bodies as dockerd reads them. Values come from clients of many ages, so each reader follows moby's
 * own (api/server/httputils): what counts as true, both encodings of `filters`, the three forms of a timestamp.
 */
import type { FastifyRequest } from 'fastify';
import { DrydockError } from '#common/errors';
import { goDurationNs } from '../go-text.ts';
import { badParameter } from './errors.ts';

/** A query as fastify gives it. A name that occurs twice is an array. */
type Query = Record<string, string | string[] | undefined>;

/** The value of a parameter, or '' ; the first one if it occurs several times. */
export function text(request: FastifyRequest, name: string): string {
  const value = (request.query as Query)[name];
  return (Array.isArray(value) ? value[0] : value) ?? '';
}

/** All values of a parameter. */
export function texts(request: FastifyRequest, name: string): string[] {
  const value = (request.query as Query)[name];
  return value === undefined ? [] : Array.isArray(value) ? value : [value];
}

/** httputils.BoolValue: anything but '', 0, no, false and none is true. */
export function flag(request: FastifyRequest, name: string, missing = false): boolean {
  if (!Object.hasOwn(request.query as Query, name)) return missing;
  return !['', '0', 'no', 'false', 'none'].includes(text(request, name).toLowerCase().trim());
}

/** An integer, or `missing` when absent. @throws ERR_BAD_PARAMETER for anything else */
export function integer(request: FastifyRequest, name: string): number | undefined;
export function integer(request: FastifyRequest, name: string, missing: number): number;
export function integer(request: FastifyRequest, name: string, missing?: number): number | undefined {
  const value = text(request, name);
  if (value === '') return missing;
  if (!/^[+-]?\d+$/.test(value))
    throw badParameter(`strconv.Atoi: parsing ${JSON.stringify(value)}: invalid syntax`);
  return Number(value);
}

/**
 * The `filters` parameter: `{"label":["a"]}` or the older `{"label":{"a":true}}`.
 * @param accepted names that the endpoint knows @throws ERR_BAD_PARAMETER for malformed JSON and unknown names
 */
export function filters(request: FastifyRequest, accepted: ReadonlySet<string>): Map<string, string[]> {
  const raw = text(request, 'filters');
  const result = new Map<string, string[]>();
  if (raw === '') return result;
  let parsed: unknown;
  try {
    parsed = JSON.parse(raw);
  } catch {
    throw badParameter('invalid filter');
  }
  if (parsed === null || typeof parsed !== 'object' || Array.isArray(parsed))
    throw badParameter('invalid filter');
  for (const [name, value] of Object.entries(parsed)) {
    if (!accepted.has(name)) throw badParameter(`invalid filter '${name}'`);
    const values = Array.isArray(value)
      ? value
      : value && typeof value === 'object'
        ? Object.keys(value)
        : [];
    if (values.some((v) => typeof v !== 'string')) throw badParameter('invalid filter');
    if (values.length > 0) result.set(name, values);
  }
  return result;
}

/**
 * A boolean filter such as `dangling`: true, false or undefined when absent.
 * @throws ERR_BAD_PARAMETER for other values or several
 */
export function booleanFilter(found: Map<string, string[]>, name: string): boolean | undefined {
  const values = found.get(name);
  if (values === undefined) return undefined;
  const [value] = values;
  if (values.length === 1 && (value === '1' || value === 'true')) return true;
  if (values.length === 1 && (value === '0' || value === 'false')) return false;
  throw badParameter(`invalid filter '${name}=[${values.join(' ')}]'`);
}

/**
 * A time of `since`, `until`: seconds with an optional fraction (what the CLI sends), RFC 3339, or a Go duration before
 * now. Returns nanoseconds since the epoch, exact in the fraction that the client gave.
 */
export function timestampNano(value: string, wallMs: number): bigint {
  const seconds = /^(-?\d{1,12})(?:\.(\d{1,9})\d*)?$/.exec(value);
  if (seconds) return BigInt(seconds[1]!) * 1_000_000_000n + BigInt((seconds[2] ?? '').padEnd(9, '0'));
  const nowNano = BigInt(Math.floor(wallMs)) * 1_000_000n;
  const agoNs = goDurationNs(value);
  if (agoNs !== undefined) return nowNano - BigInt(Math.round(agoNs));
  const stamp =
    /^(\d{4}-\d\d-\d\d)(?:T(\d\d(?::\d\d(?::\d\d)?)?)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)?)?$/.exec(value);
  if (stamp) {
    const time = `${stamp[2] ?? '00'}:00:00`.slice(0, 8);
    const ms = Date.parse(`${stamp[1]}T${time}${stamp[4] ?? 'Z'}`);
    if (!Number.isNaN(ms)) return BigInt(ms) * 1_000_000n + BigInt((stamp[3] ?? '').padEnd(9, '0'));
  }
  throw badParameter(`invalid value for "since" or "until": ${JSON.stringify(value)} is not a time`);
}

/** The JSON object of the body. @throws ERR_BAD_JSON with dockerd's texts when there is none */
export function jsonBody(request: FastifyRequest): Record<string, unknown> {
  const body = optionalJsonBody(request);
  if (body === undefined)
    throw new DrydockError('ERR_BAD_JSON', 'invalid JSON: got EOF while reading request body');
  return body;
}

/** The JSON object of the body, or undefined when the body is empty. */
export function optionalJsonBody(request: FastifyRequest): Record<string, unknown> | undefined {
  const { body } = request;
  if (body === undefined || body === null) return undefined;
  if (isForeignBody(body)) {
    const type = request.headers['content-type'] ?? '';
    throw badParameter(
      type === ''
        ? 'malformed Content-Type header (): mime: no media type'
        : `unsupported Content-Type header (${type}): must be 'application/json'`,
    );
  }
  if (typeof body !== 'object' || Array.isArray(body))
    throw new DrydockError(
      'ERR_BAD_JSON',
      `invalid JSON: expected an object, not ${JSON.stringify(body).slice(0, 40)}`,
    );
  return body as Record<string, unknown>;
}

function isForeignBody(body: unknown): boolean {
  return typeof (body as { pipe?: unknown }).pipe === 'function';
}
