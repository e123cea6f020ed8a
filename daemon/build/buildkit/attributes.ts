/**
 * The options of BuildKit's Dockerfile frontend as clients send them (moby/buildkit, frontend/dockerui/config.go and
 * frontend/dockerui/namedcontext.go): texts by name, some names with a prefix. Pure functions.
 */
import { DrydockError } from '#common/errors';
import type { HostConfig } from '../../container/types.ts';
import { type BuildOptions, NO_WISHES } from '../options.ts';
import type { SourceNames } from './context.ts';
import type { TypedOptions } from './control-messages.ts';

type Attributes = ReadonlyMap<string, string>;

const bad = (text: string): DrydockError => new DrydockError('ERR_BAD_PARAMETER', text);

/** What the client says about a build. */
export interface FrontendWishes {
  options: Omit<BuildOptions, 'dockerfile' | 'contextPath' | 'namedContexts'>;
  hostConfig: HostConfig;
  sources: SourceNames;
  /** Names for FROM and `--from`, and what they stand for: `docker-image://...`, `local:...`, `input:...`, an address. */
  contexts: Map<string, string>;
  /** Something else than a build is asked for: a listing of targets, a check. */
  requestId: string;
}

/** Names that say nothing about the result, or what is always so here. */
const IDLE = new Set([
  'frontend.caps',
  'frontend',
  'cmdline',
  'source',
  'build-arg-order',
  'image-resolve-mode',
  'sharedkey',
]);
const KNOWN = new Set([
  'filename',
  'target',
  'no-cache',
  'platform',
  'multi-platform',
  'add-hosts',
  'shm-size',
  'ulimit',
  'memory',
  'memswap',
  'cpushares',
  'cpuperiod',
  'cpuquota',
  'cpusetcpus',
  'cpusetmems',
  'force-network-mode',
  'cgroup-parent',
  'context',
  'contextkey',
  'contextsubdir',
  'dockerfilekey',
  'cache-imports',
  'cache-from',
  'requestid',
]);
const PREFIXES = [
  'build-arg:',
  'label:',
  'context:',
  'input-metadata:',
  'vcs:',
  'local-sessionid:',
  'sharedkey:',
  'localdir:',
];

/** Reads the options. @throws ERR_BAD_PARAMETER for one that can't be honoured */
export function readAttributes(attributes: Attributes): FrontendWishes {
  for (const [name, value] of attributes) checkKnown(name, value);
  const text = (name: string): string => attributes.get(name) ?? '';
  const buildArgs = prefixed(attributes, 'build-arg:');
  const noCache = attributes.get('no-cache');
  return {
    options: {
      ...NO_WISHES,
      mode: 'buildkit',
      target: text('target'),
      buildArgs,
      labels: Object.fromEntries(prefixed(attributes, 'label:')),
      noCache: noCache === '',
      noCacheStages: noCache ? noCache.split(',') : [],
      pull: text('image-resolve-mode') === 'pull',
      cacheFrom: cacheImports(text('cache-imports'), text('cache-from')),
      platform: platformOf(text('platform')),
      quiet: true,
    },
    hostConfig: hostConfigOf(attributes),
    sources: {
      filename: text('filename') || 'Dockerfile',
      contextName: text('contextkey') || 'context',
      dockerfileName: text('dockerfilekey') || 'dockerfile',
      remote: attributes.get('context'),
      hasOwnDockerfile: attributes.has('dockerfilekey'),
      subfolder: text('contextsubdir'),
    },
    contexts: prefixed(attributes, 'context:'),
    requestId: text('requestid'),
  };
}

function checkKnown(name: string, value: string): void {
  if (name === 'attest:provenance' && /(^|,)(inline-only=true|disabled=true)(,|$)/.test(value)) return;
  if (name.startsWith('attest:') && value !== 'false' && !/disabled=true/.test(value))
    throw bad(
      `the attestation ${name.slice('attest:'.length)} can't be made by this daemon: build with --provenance=false --sbom=false`,
    );
  const isKnown =
    KNOWN.has(name) ||
    IDLE.has(name) ||
    name.startsWith('attest:') ||
    PREFIXES.some((prefix) => name.startsWith(prefix));
  if (!isKnown) throw bad(`the build option ${name} is not known to this daemon`);
}

function prefixed(attributes: Attributes, prefix: string): Map<string, string> {
  return new Map(
    [...attributes].flatMap(([name, value]) =>
      name.startsWith(prefix) ? [[name.slice(prefix.length), value]] : [],
    ),
  );
}

function platformOf(text: string): string {
  if (text.includes(','))
    throw bad("multiple platforms can't be built by this daemon at a time: build for one after the other");
  return text;
}

/** Images to take steps from: those of a registry, whose history tells what they were made of. */
function cacheImports(json: string, names: string): string[] {
  const found = names.split(',').filter((name) => name !== '');
  const entries: unknown = json === '' ? [] : JSON.parse(json);
  if (!Array.isArray(entries)) throw bad('cache-imports is not a list');
  for (const entry of entries as { Type?: string; Attrs?: Record<string, string> }[])
    found.push(cacheImport({ Type: entry.Type ?? '', Attrs: new Map(Object.entries(entry.Attrs ?? {})) }));
  return found;
}

/** The image that a `--cache-from` names. @throws ERR_BAD_PARAMETER for another kind of cache */
export function cacheImport({ Type, Attrs }: TypedOptions): string {
  const ref = Attrs.get('ref');
  if (Type !== 'registry' || ref === undefined)
    throw bad(
      `unknown cache importer: ${Type}: --cache-from type=${Type} is not supported by this daemon: name an image (type=registry,ref=...)`,
    );
  return ref;
}

/** Refuses where a cache can't go. An image always carries its own: its history and layers. @throws ERR_BAD_PARAMETER */
export function checkCacheExport({ Type }: TypedOptions): void {
  if (Type !== 'inline')
    throw bad(
      `unknown cache exporter: ${JSON.stringify(Type)}: --cache-to type=${Type} is not supported by this daemon: use type=inline, and push the image`,
    );
}

function hostConfigOf(attributes: Attributes): HostConfig {
  const number = (name: string): number => {
    const text = attributes.get(name) ?? '0';
    if (!/^-?\d+$/.test(text)) throw bad(`invalid value ${JSON.stringify(text)} for ${name}`);
    return Number(text);
  };
  const text = (name: string): string => attributes.get(name) ?? '';
  const network = text('force-network-mode');
  if (!['', 'default', 'sandbox', 'none', 'host'].includes(network))
    throw bad(`invalid network mode ${JSON.stringify(network)}`);
  return {
    NetworkMode: network === 'none' || network === 'host' ? network : 'default',
    Memory: number('memory'),
    MemorySwap: number('memswap'),
    CpuShares: number('cpushares'),
    CpuPeriod: number('cpuperiod'),
    CpuQuota: number('cpuquota'),
    CpusetCpus: text('cpusetcpus'),
    CpusetMems: text('cpusetmems'),
    ShmSize: number('shm-size'),
    CgroupParent: text('cgroup-parent'),
    // Sent as CSV of `host=address`.
    ExtraHosts: text('add-hosts')
      .split(',')
      .filter((entry) => entry !== '')
      .map((entry) => entry.replace(/^"?([^=]*)=(.*?)"?$/, '$1:$2')),
    Ulimits: text('ulimit')
      .split(',')
      .filter((entry) => entry !== '')
      .map(ulimitOf),
  };
}

/** `nofile=1024:2048` */
function ulimitOf(text: string): { Name: string; Soft: number; Hard: number } {
  const [, name, soft, hard] = /^"?([a-z]+)=(-?\d+)(?::(-?\d+))?"?$/.exec(text) ?? [];
  if (name === undefined) throw bad(`invalid ulimit ${JSON.stringify(text)}`);
  return { Name: name, Soft: Number(soft), Hard: Number(hard ?? soft) };
}
