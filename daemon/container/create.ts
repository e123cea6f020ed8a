/** From a create request and an image to a container's record. Pure: names, ids and times are given. */
import { DrydockError, errorMessage } from '#common/errors';
import type { Ulimit } from '../config-values.ts';
import type { Image } from '../image/store.ts';
import { checkEndpoint } from '../network/endpoint.ts';
import { formatGuestPort, parseGuestPort, portWishes } from '../network/ports.ts';
import { DEFAULT_MASKED_PATHS, DEFAULT_READONLY_PATHS } from '../runtime/index.ts';
import type { SeccompProfile } from '../runtime/runtime.ts';
import { newState } from './lifecycle.ts';
import type {
  ContainerConfig,
  ContainerRecord,
  CreateRequest,
  EndpointSettings,
  HostConfig,
} from './types.ts';
import { checkConfig, checkHostConfig, type HostSize } from './validate.ts';

function invalid(message: string): DrydockError {
  return new DrydockError('ERR_BAD_PARAMETER', message);
}

/** What is decided outside. */
export interface CreateFacts {
  id: string;
  name: string;
  created: string;
  image: Image;
  /** Default log driver and its options. */
  logConfig: { Type: string; Config: Record<string, string> };
  defaultRuntime: string;
  defaults: ContainerDefaults;
  hostSize?: HostSize;
}

/** What containers get that don't say: the daemon's options of these names. */
export interface ContainerDefaults {
  shmBytes: number;
  ipcMode: string;
  cgroupnsMode: string;
  cgroupParent: string;
  ulimits: Readonly<Record<string, Ulimit>>;
  init: boolean;
  noNewPrivileges: boolean;
  /** Of containers that name no profile; undefined for docker's own. */
  seccomp: SeccompProfile | 'unconfined' | undefined;
  /** What `default` and `bridge` stand for. */
  networkMode: 'bridge' | 'none';
}

/** A record without its mounts, and what the client should be told. */
export interface Created {
  record: ContainerRecord;
  warnings: string[];
}

/** Makes a record. @throws DrydockError ERR_BAD_PARAMETER, ERR_NOT_IMPLEMENTED with dockerd's texts */
export function createRecord(request: CreateRequest, facts: CreateFacts): Created {
  const { HostConfig: hostRequest, NetworkingConfig: networking, ...configRequest } = request;
  for (const field of ['Cmd', 'Entrypoint'] as const)
    if (typeof configRequest[field] === 'string') configRequest[field] = [configRequest[field]];
  const config = mergeConfig(configRequest, facts.image);
  config.Hostname ||=
    hostRequest?.UTSMode === 'host' || hostRequest?.NetworkMode === 'host' ? '' : facts.id.slice(0, 12);
  checkConfig(config);
  const host = withDefaults(hostRequest ?? {}, facts);
  const warnings = checkHostConfig(host, facts.hostSize);
  checkNetworkMode(configRequest, host);
  if (Object.keys(host.PortBindings ?? {}).length > 0 && ['host', 'none'].includes(host.NetworkMode!))
    warnings.push(
      host.NetworkMode === 'host'
        ? 'Published ports are discarded when using host network mode'
        : 'Published ports are discarded when using none network mode',
    );
  config.ExposedPorts = withProtocols(config.ExposedPorts);
  host.PortBindings = withProtocols(host.PortBindings);
  for (const wish of portWishes(host.PortBindings, undefined, false))
    config.ExposedPorts = { ...config.ExposedPorts, [`${wish.guest.port}/${wish.guest.protocol}`]: {} };
  const args = [...(config.Entrypoint ?? []), ...(config.Cmd ?? [])];
  if (args.length === 0) throw invalid('no command specified');
  const record: ContainerRecord = {
    id: facts.id,
    name: facts.name,
    created: facts.created,
    imageId: facts.image.id,
    config,
    hostConfig: host,
    args,
    mounts: [],
    networks: endpoints(networking?.EndpointsConfig ?? {}, host, config),
    state: newState(),
  };
  return { record, warnings };
}

/** Lays the request over the image's configuration (moby: runconfig.Merge). */
function mergeConfig(request: ContainerConfig, image: Image): ContainerConfig {
  const base = image.config;
  const entrypointGiven = Array.isArray(request.Entrypoint) && request.Entrypoint.length > 0;
  // `--entrypoint ""` arrives as [""]: no entrypoint, and the image's is not used either.
  const cleared = request.Entrypoint?.length === 1 && request.Entrypoint[0] === '';
  const merged: ContainerConfig = {
    ...request,
    User: request.User || base.User || '',
    WorkingDir: request.WorkingDir || base.WorkingDir || '',
    Env: mergeEnv(request.Env ?? [], base.Env ?? []),
    Labels: { ...base.Labels, ...request.Labels },
    Entrypoint: cleared ? null : entrypointGiven ? request.Entrypoint! : (base.Entrypoint ?? null),
    Cmd: request.Cmd?.length ? request.Cmd : entrypointGiven ? (request.Cmd ?? null) : (base.Cmd ?? null),
    Volumes: { ...base.Volumes, ...request.Volumes },
    ExposedPorts: { ...base.ExposedPorts, ...request.ExposedPorts },
    StopSignal: request.StopSignal || base.StopSignal || 'SIGTERM',
  };
  const health = mergeHealth(request.Healthcheck, base.Healthcheck);
  if (health) merged.Healthcheck = health;
  else delete merged.Healthcheck;
  return merged;
}

function mergeHealth(
  asked: ContainerConfig['Healthcheck'],
  base: ContainerConfig['Healthcheck'],
): ContainerConfig['Healthcheck'] {
  if (!asked) return base;
  if (!base) return asked;
  return {
    Test: asked.Test?.length ? asked.Test : (base.Test ?? []),
    Interval: asked.Interval || base.Interval || 0,
    Timeout: asked.Timeout || base.Timeout || 0,
    StartPeriod: asked.StartPeriod || base.StartPeriod || 0,
    StartInterval: asked.StartInterval || base.StartInterval || 0,
    Retries: asked.Retries || base.Retries || 0,
  };
}

function mergeEnv(asked: string[], base: string[]): string[] {
  const nameOf = (entry: string): string => entry.split('=', 1)[0]!;
  const names = new Set(asked.map(nameOf));
  return [...asked, ...base.filter((entry) => !names.has(nameOf(entry)))];
}

function withDefaults(request: HostConfig, facts: CreateFacts): HostConfig {
  const host: HostConfig = { ...request };
  if (!host.NetworkMode || host.NetworkMode === 'default') host.NetworkMode = 'bridge';
  const { defaults } = facts;
  if (host.NetworkMode === 'bridge') host.NetworkMode = defaults.networkMode;
  host.IpcMode ||= defaults.ipcMode;
  host.CgroupnsMode ||= host.Privileged ? 'host' : defaults.cgroupnsMode;
  host.ShmSize ||= defaults.shmBytes;
  if (defaults.cgroupParent !== '') host.CgroupParent ||= defaults.cgroupParent;
  if (defaults.init) host.Init ??= true;
  const own = new Set(host.Ulimits?.map(({ Name }) => Name));
  const missing = Object.values(defaults.ulimits).filter(({ Name }) => !own.has(Name));
  if (missing.length > 0) host.Ulimits = [...(host.Ulimits ?? []), ...missing];
  if (defaults.noNewPrivileges && !host.SecurityOpt?.some((option) => /^no-new-privileges\b/.test(option)))
    host.SecurityOpt = [...(host.SecurityOpt ?? []), 'no-new-privileges'];
  host.Runtime ||= facts.defaultRuntime;
  host.RestartPolicy = {
    Name: host.RestartPolicy?.Name || 'no',
    MaximumRetryCount: host.RestartPolicy?.MaximumRetryCount ?? 0,
  };
  host.LogConfig = host.LogConfig?.Type
    ? { Type: host.LogConfig.Type, Config: host.LogConfig.Config ?? {} }
    : { Type: facts.logConfig.Type, Config: { ...facts.logConfig.Config, ...host.LogConfig?.Config } };
  if (!host.Privileged && !host.SecurityOpt?.some((option) => /^systempaths[=:]unconfined$/.test(option))) {
    host.MaskedPaths ??= [...DEFAULT_MASKED_PATHS];
    host.ReadonlyPaths ??= [...DEFAULT_READONLY_PATHS];
  }
  if ((host.Memory ?? 0) > 0 && !host.MemorySwap) host.MemorySwap = host.Memory! * 2;
  if (host.PidsLimit != null && host.PidsLimit <= 0) host.PidsLimit = null;
  return host;
}

/** Ports as keys are `80/tcp`, also when a client said `80`. */
function withProtocols<T>(ports: Record<string, T> | null | undefined): Record<string, T> {
  return Object.fromEntries(
    Object.entries(ports ?? {}).map(([port, value]) => [formatGuestPort(parseGuestPort(port)), value]),
  );
}

function checkNetworkMode(config: ContainerConfig, host: HostConfig): void {
  const mode = host.NetworkMode!;
  const isContainer = mode.startsWith('container:');
  if ((isContainer || mode === 'host') && (host.Links?.length ?? 0) > 0)
    throw invalid(
      `conflicting options: ${isContainer ? 'container type network' : 'host type networking'} can't be used with links. This would result in undefined behavior`,
    );
  if (config.Hostname && host.UTSMode === 'host')
    throw invalid('conflicting options: hostname and the UTS mode');
  if (!isContainer) return;
  if (config.Hostname) throw invalid('conflicting options: hostname and the network mode');
  if (host.Dns?.length || host.DnsSearch?.length || host.DnsOptions?.length)
    throw invalid('conflicting options: dns and the network mode');
  if (host.ExtraHosts?.length)
    throw invalid('conflicting options: custom host-to-IP mapping and the network mode');
  if (Object.keys(host.PortBindings ?? {}).length > 0 || host.PublishAllPorts)
    throw invalid('conflicting options: port publishing and the container type network mode');
  if (Object.keys(config.ExposedPorts ?? {}).length > 0)
    throw invalid('conflicting options: port exposing and the container type network mode');
}

function endpoints(
  asked: Record<string, EndpointSettings | null>,
  host: HostConfig,
  config: ContainerConfig,
): Record<string, EndpointSettings> {
  const mode = host.NetworkMode!;
  const networks: Record<string, EndpointSettings> = {};
  if (mode.startsWith('container:') || config.NetworkDisabled) return networks;
  for (const [name, settings] of Object.entries(asked))
    networks[name === 'default' ? 'bridge' : name] = { ...settings };
  networks[mode] ??= {};
  for (const [name, settings] of Object.entries(networks))
    try {
      checkEndpoint(name, settings);
    } catch (error) {
      throw new DrydockError(
        'ERR_BAD_PARAMETER',
        `invalid config for network ${name}: ${errorMessage(error)}`,
        {
          cause: error,
        },
      );
    }
  if (config.MacAddress && !networks[mode].MacAddress) networks[mode].MacAddress = config.MacAddress;
  const first = Object.keys(networks)[0];
  if (['host', 'none'].includes(mode) && Object.keys(networks).length > 1)
    throw invalid(
      `conflicting options: cannot attach both ${mode} and ${first === mode ? Object.keys(networks)[1] : first}: ${mode} can only be used alone`,
    );
  return networks;
}
