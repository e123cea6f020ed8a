/**
 * Image configurations (OCI image specification, config.md, with docker's additions): from bytes of strangers to
 * values whose types hold. What is not understood is kept in the bytes, which are never written anew: the id of an
 * image is their digest.
 */
import { DrydockError } from '#common/errors';
import { isDigest } from './reference.ts';
import type { Image, ImageConfig } from './store.ts';

/** Configurations and manifests larger than this are refused, as registries do. */
export const DOCUMENT_BYTES_MAX: number = 4 << 20;

/** An image configuration document. */
export interface ConfigFile {
  architecture: string;
  os: string;
  variant?: string;
  author?: string;
  comment?: string;
  created?: string;
  config: ImageConfig;
  history: Image['history'];
  rootfs: { type: 'layers'; diff_ids: string[] };
}

function bad(reason: string): DrydockError {
  return new DrydockError(
    'ERR_BAD_ARCHIVE',
    `invalid image: ${reason}. Make the image again or fetch it anew.`,
  );
}

type Shape = (value: unknown) => boolean;
const isString: Shape = (value) => typeof value === 'string';
const isNumber: Shape = (value) => typeof value === 'number';
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isStrings: Shape = (value) => Array.isArray(value) && value.every(isString);
const isStringMap: Shape = (value) => isObject(value) && Object.values(value).every(isString);
const isSet: Shape = (value) => isObject(value) && Object.values(value).every(isObject);

const CONFIG_SHAPES: Record<keyof ImageConfig, Shape> = {
  User: isString,
  ExposedPorts: isSet,
  Env: isStrings,
  Entrypoint: isStrings,
  Cmd: isStrings,
  Volumes: isSet,
  WorkingDir: isString,
  Labels: isStringMap,
  StopSignal: isString,
  Shell: isStrings,
  Healthcheck: isHealthcheck,
  OnBuild: isStrings,
  ArgsEscaped: (value) => typeof value === 'boolean',
};

function isHealthcheck(value: unknown): boolean {
  if (!isObject(value)) return false;
  const { Test, ...numbers } = value;
  const isKnown = ([key, number]: [string, unknown]): boolean =>
    !['Interval', 'Timeout', 'StartPeriod', 'StartInterval', 'Retries'].includes(key) || isNumber(number);
  return (Test === undefined || Test === null || isStrings(Test)) && Object.entries(numbers).every(isKnown);
}

/** Takes over the fields of `config` that we know; null means absent, as Go writes it. */
function parseImageConfig(value: unknown): ImageConfig {
  if (value === undefined || value === null) return {};
  if (!isObject(value)) throw bad('its config is not an object');
  const config: Record<string, unknown> = {};
  for (const [key, shape] of Object.entries(CONFIG_SHAPES)) {
    const field = value[key];
    if (field === undefined || field === null) continue;
    if (!shape(field)) throw bad(`its config has a bad ${key}`);
    config[key] = field;
  }
  return config as ImageConfig;
}

function optionalString(document: Record<string, unknown>, key: string): string | undefined {
  const value = document[key];
  if (value === undefined || value === null || value === '') return undefined;
  if (typeof value !== 'string') throw bad(`its ${key} is not text`);
  return value;
}

function parseHistory(value: unknown): Image['history'] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw bad('its history is not a list');
  return value.map((entry: unknown) => {
    if (!isObject(entry)) throw bad('its history has a bad entry');
    const step: Image['history'][number] = {};
    for (const key of ['created', 'created_by', 'author', 'comment'] as const) {
      const text = optionalString(entry, key);
      if (text !== undefined) step[key] = text;
    }
    if (entry.empty_layer === true) step.empty_layer = true;
    return step;
  });
}

/** Parses JSON of a stranger. @throws DrydockError ERR_BAD_ARCHIVE */
export function parseDocument(bytes: Uint8Array, what: string): Record<string, unknown> {
  if (bytes.length > DOCUMENT_BYTES_MAX) throw bad(`its ${what} has ${bytes.length} bytes`);
  let document: unknown;
  try {
    document = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch {
    throw bad(`its ${what} is not JSON`);
  }
  if (!isObject(document)) throw bad(`its ${what} is not an object`);
  return document;
}

/** Parses an image configuration. @throws DrydockError ERR_BAD_ARCHIVE, saying which field is wrong. */
export function parseConfigFile(bytes: Uint8Array): ConfigFile {
  const document = parseDocument(bytes, 'configuration');
  const rootfs = document.rootfs;
  if (!isObject(rootfs) || rootfs.type !== 'layers') throw bad('its configuration has no rootfs of layers');
  const diffIds = rootfs.diff_ids ?? [];
  if (
    !Array.isArray(diffIds) ||
    !diffIds.every((id) => isString(id) && isDigest(id) && id.startsWith('sha256:'))
  )
    throw bad('its rootfs has bad diff_ids');
  const file: ConfigFile = {
    architecture: optionalString(document, 'architecture') ?? '',
    os: optionalString(document, 'os') ?? 'linux',
    config: parseImageConfig(document.config),
    history: parseHistory(document.history),
    rootfs: { type: 'layers', diff_ids: diffIds },
  };
  for (const key of ['variant', 'author', 'comment', 'created'] as const) {
    const text = optionalString(document, key);
    if (text !== undefined) file[key] = text;
  }
  return file;
}

/** A configuration as bytes; the same value gives the same bytes, and so the same id. */
export function emitConfigFile(file: ConfigFile): Buffer {
  return Buffer.from(JSON.stringify(file));
}

/** Go's names of processor architectures, which images use. */
const GOARCH: Partial<Record<NodeJS.Architecture, string>> = { x64: 'amd64', ia32: '386', ppc64: 'ppc64le' };

/** The architecture of this machine as images name it. */
export function hostArchitecture(): string {
  return GOARCH[process.arch] ?? process.arch;
}

/** The operating system whose programs run here. */
export function hostOs(): string {
  return process.platform;
}
