/**
 * Checks a create request the way dockerd does (moby: daemon/container.go verifyContainerSettings, daemon_unix.go
 * verifyPlatformContainerSettings, runconfig): what makes no sense is an error in dockerd's words, what can't be had
 * here is an error or a warning by the design's rule: a promise of security is an error, a wish about resources a
 * warning. Nothing is dropped in silence. Pure.
 */
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { cpus } from 'node:os';
import { DrydockError } from '#common/errors';
import { goBool, goSize } from '../go-text.ts';
import { MEMORY_BYTES_MIN, NAME_LENGTH_MAX } from '../limits.ts';
import type { JailDeviceRule } from '../runtime/runtime.ts';
import { signalNumber } from './signals.ts';
import type { ContainerConfig, HostConfig } from './types.ts';

const NAME = /^\/?[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

function invalid(message: string): DrydockError {
  return new DrydockError('ERR_BAD_PARAMETER', message);
}

/** Checks a container's name and returns it without its slash. */
export function checkName(name: string): string {
  if (!NAME.test(name) || name.length > NAME_LENGTH_MAX)
    throw invalid(`Invalid container name (${name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`);
  return name.replace(/^\//, '');
}

/** Checks what does not depend on the host. */
export function checkConfig(config: ContainerConfig): void {
  if (config.WorkingDir && !config.WorkingDir.startsWith('/'))
    throw invalid(`the working directory '${config.WorkingDir}' is invalid, it needs to be an absolute path`);
  for (const entry of config.Env ?? [])
    if (entry === '' || entry.startsWith('=')) throw invalid(`invalid environment variable: ${entry}`);
  if (config.StopSignal) signalNumber(config.StopSignal);
  const hostname = config.Hostname ?? '';
  if (
    hostname.length > 63 ||
    (hostname !== '' && !/^[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?$/.test(hostname))
  )
    throw invalid(`invalid hostname: ${hostname}`);
  const health = config.Healthcheck;
  if (!health) return;
  for (const field of ['Interval', 'Timeout', 'StartPeriod', 'StartInterval'] as const) {
    const value = health[field] ?? 0;
    if (value !== 0 && value < 1_000_000) throw invalid(`${field} in Healthcheck cannot be less than 1ms`);
  }
  if ((health.Retries ?? 0) < 0) throw invalid('Retries in Healthcheck cannot be negative');
}

/** How the number of processors is known; a test gives its own. */
export interface HostSize {
  processors: number;
  memoryNodes: number;
}

/** Checks what the host is asked for; returns warnings for the client. */
export function checkHostConfig(
  host: HostConfig,
  size: HostSize = { processors: cpus().length, memoryNodes: memoryNodes() },
): string[] {
  checkRestart(host);
  checkMemory(host);
  checkCpu(host, size);
  checkModes(host);
  checkUnsupported(host);
  checkLogs(host);
  checkExtraHosts(host);
  return warnings(host);
}

function checkRestart(host: HostConfig): void {
  const { Name = '', MaximumRetryCount = 0 } = host.RestartPolicy ?? {};
  if (!['', 'no', 'always', 'unless-stopped', 'on-failure'].includes(Name))
    throw invalid(
      `invalid restart policy: unknown policy '${Name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'`,
    );
  if (MaximumRetryCount < 0) throw invalid('invalid restart policy: maximum retry count cannot be negative');
  if (MaximumRetryCount > 0 && Name !== 'on-failure')
    throw invalid("invalid restart policy: maximum retry count can only be used with 'on-failure'");
  if (host.AutoRemove && !['', 'no'].includes(Name))
    throw invalid("can't create 'AutoRemove' container with restart policy");
}

function checkMemory(host: HostConfig): void {
  const { Memory = 0, MemorySwap = 0, MemoryReservation = 0, MemorySwappiness } = host;
  if (Memory !== 0 && Memory < MEMORY_BYTES_MIN) throw invalid('Minimum memory limit allowed is 6MB');
  if (Memory > 0 && MemorySwap > 0 && MemorySwap < Memory)
    throw invalid('Minimum memoryswap limit should be larger than memory limit, see usage');
  if (Memory === 0 && MemorySwap > 0)
    throw invalid('You should always set the Memory limit when using Memoryswap limit, see usage');
  if (MemorySwappiness != null && (MemorySwappiness < -1 || MemorySwappiness > 100))
    throw invalid(`Invalid value: ${MemorySwappiness}, valid memory swappiness range is 0-100`);
  if (MemoryReservation > 0 && MemoryReservation < MEMORY_BYTES_MIN)
    throw invalid('Minimum memory reservation allowed is 6MB');
  if (Memory > 0 && MemoryReservation > Memory)
    throw invalid('Minimum memory limit can not be less than memory reservation limit, see usage');
  if ((host.ShmSize ?? 0) < 0) throw invalid('SHM size can not be less than 0');
  const score = host.OomScoreAdj ?? 0;
  if (score < -1000 || score > 1000)
    throw invalid(`Invalid value ${score}, range for oom score adj is [-1000, 1000]`);
}

function checkCpu(host: HostConfig, size: HostSize): void {
  const { NanoCpus = 0, CpuPeriod = 0, CpuQuota = 0, BlkioWeight = 0 } = host;
  if (NanoCpus > 0 && CpuPeriod > 0)
    throw invalid('Conflicting options: Nano CPUs and CPU Period cannot both be set');
  if (NanoCpus > 0 && CpuQuota > 0)
    throw invalid('Conflicting options: Nano CPUs and CPU Quota cannot both be set');
  if (NanoCpus < 0 || NanoCpus > size.processors * 1e9)
    throw invalid(
      `range of CPUs is from 0.01 to ${size.processors}.00, as there are only ${size.processors} CPUs available`,
    );
  if (CpuPeriod !== 0 && (CpuPeriod < 1000 || CpuPeriod > 1_000_000))
    throw invalid('CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)');
  if (CpuQuota > 0 && CpuQuota < 1000) throw invalid('CPU cfs quota can not be less than 1ms (i.e. 1000)');
  if ((host.CpuShares ?? 0) < 0)
    throw invalid(`invalid CPU shares (${host.CpuShares}): value must be a positive integer`);
  if (BlkioWeight !== 0 && (BlkioWeight < 10 || BlkioWeight > 1000))
    throw invalid('Range of blkio weight is from 10 to 1000');
  checkBlkio(host);
  checkCpuset(host.CpusetCpus ?? '', 'cpus', size.processors);
  checkCpuset(host.CpusetMems ?? '', 'mems', size.memoryNodes);
}

/** Limits of devices, which a CLI checks itself; the device is looked at when the container starts. */
function checkBlkio(host: HostConfig): void {
  for (const { Path = '', Weight = 0 } of host.BlkioWeightDevice ?? [])
    if (!Path.startsWith('/dev/') || Weight < 10 || Weight > 1000)
      throw invalid(`invalid block I/O weight of a device: ${Path}:${Weight}: 10 to 1000 of a path in /dev`);
  const rates = [
    host.BlkioDeviceReadBps,
    host.BlkioDeviceWriteBps,
    host.BlkioDeviceReadIOps,
    host.BlkioDeviceWriteIOps,
  ].flatMap((list) => list ?? []);
  for (const { Path = '', Rate = 0 } of rates)
    if (!Path.startsWith('/dev/') || Rate < 1)
      throw invalid(`invalid block I/O rate of a device: ${Path}:${Rate}: 1 and up of a path in /dev`);
}

function checkCpuset(text: string, kind: 'cpus' | 'mems', available: number): void {
  if (text === '') return;
  for (const part of text.split(',')) {
    const match = /^(\d+)(?:-(\d+))?$/.exec(part);
    const last = Number(match?.[2] ?? match?.[1]);
    if (!match || Number(match[1]) > last)
      throw invalid(`Invalid value ${text} for cpuset ${kind}: invalid format: ${part}`);
    if (last >= available)
      throw invalid(
        `Requested ${kind === 'cpus' ? 'CPUs' : 'memory nodes'} are not available - requested ${text}, available: ${range(available)}`,
      );
  }
}

/** How the kernel writes the first numbers. */
function range(count: number): string {
  return count === 1 ? '0' : `0-${count - 1}`;
}

/** Of this machine; one where the kernel knows none (sysfs-devices-node). */
function memoryNodes(): number {
  try {
    const [, last = '0'] = /(\d+)\s*$/.exec(readFileSync('/sys/devices/system/node/online', 'utf8')) ?? [];
    return Number(last) + 1;
  } catch {
    return 1;
  }
}

function checkModes(host: HostConfig): void {
  const mode = (field: string, value: string | undefined, fixed: string[]): void => {
    const text = value ?? '';
    if (fixed.includes(text) || (field !== 'UTS' && /^container:.+/.test(text))) return;
    throw invalid(
      text.startsWith('container:')
        ? `invalid ${field} mode: ${text}: name a container after the colon`
        : `invalid ${field} mode: ${text}`,
    );
  };
  mode('PID', host.PidMode, ['', 'host']);
  mode('IPC', host.IpcMode, ['', 'none', 'private', 'shareable', 'host']);
  mode('UTS', host.UTSMode, ['', 'host']);
  if (!['', 'host', 'private'].includes(host.CgroupnsMode ?? ''))
    throw invalid(`invalid cgroup namespace mode: ${host.CgroupnsMode}`);
  if (!['', 'default'].includes(host.Isolation ?? ''))
    throw invalid(`invalid isolation (${host.Isolation}): linux only supports 'default'`);
  if (host.NetworkMode === 'container:')
    throw invalid('invalid network mode: invalid container format container:<name|id>');
}

function checkExtraHosts(host: HostConfig): void {
  for (const entry of host.ExtraHosts ?? []) {
    const [, name, address = ''] = /^([^:]+):(.*)$/.exec(entry) ?? [];
    if (name === undefined) throw invalid(`bad format for add-host: ${JSON.stringify(entry)}`);
    const bare = address.replace(/^\[(.*)\]$/, '$1');
    if (address !== 'host-gateway' && isIP(bare) === 0)
      throw invalid(`invalid IP address in add-host: ${JSON.stringify(address)}`);
  }
}

/** Wishes that are refused: the container would run with less protection, or without what it needs, than its user believes. */
function checkUnsupported(host: HostConfig): void {
  if (!['', 'host'].includes(host.UsernsMode ?? ''))
    throw invalid(`invalid user namespace mode: ${host.UsernsMode}: only "host" is supported`);
  for (const rule of host.DeviceCgroupRules ?? []) parseDeviceRule(rule);
  if (Object.keys(host.StorageOpt ?? {}).length > 0)
    throw invalid("--storage-opt is supported only for overlay over xfs with 'pquota' mount option");
  if (host.CpuRealtimePeriod || host.CpuRealtimeRuntime)
    throw invalid('Your kernel does not support CPU real-time scheduler');
  if (host.Cgroup) throw invalid(`invalid cgroup spec: ${host.Cgroup}`);
}

/** What a rule such as `c 10:200 rwm` or `b 7:* r` allows. @throws ERR_BAD_PARAMETER in dockerd's words */
export function parseDeviceRule(text: string): JailDeviceRule {
  const match = /^([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})$/.exec(text);
  if (!match) throw invalid(`invalid device cgroup rule format: '${text}'`);
  const [, type, major, minor, access = ''] = match;
  const number = (part: string | undefined): number | undefined => (part === '*' ? undefined : Number(part));
  return { type: type as JailDeviceRule['type'], major: number(major), minor: number(minor), access };
}

/** Devices of a driver (--gpus): there is none here, which dockerd finds at the start too. @throws ERR_BAD_PARAMETER */
export function checkDeviceRequests(host: HostConfig): void {
  const [request] = host.DeviceRequests ?? [];
  if (!request) return;
  // As Go prints a list of lists.
  const capabilities = (request.Capabilities ?? []).map((all) => `[${all.join(' ')}]`).join(' ');
  throw invalid(
    `could not select device driver ${JSON.stringify(request.Driver ?? '')} with capabilities: [${capabilities}]`,
  );
}

const LOG_OPTIONS: Record<string, ReadonlySet<string>> = {
  'json-file': new Set([
    'max-size',
    'max-file',
    'labels',
    'labels-regex',
    'env',
    'env-regex',
    'tag',
    'mode',
    'max-buffer-size',
    'compress',
  ]),
  local: new Set(['max-size', 'max-file', 'compress', 'mode', 'max-buffer-size', 'tag', 'labels', 'env']),
  none: new Set(),
};

function checkLogs(host: HostConfig): void {
  const type = host.LogConfig?.Type ?? '';
  if (type === '') return;
  const known = Object.hasOwn(LOG_OPTIONS, type) ? LOG_OPTIONS[type]! : undefined;
  if (!known)
    throw invalid(`error looking up logging plugin ${type}: plugin ${JSON.stringify(type)} not found`);
  for (const [name, value] of Object.entries(host.LogConfig?.Config ?? {})) {
    if (type === 'none') return;
    if (!known.has(name)) throw invalid(`unknown log opt '${name}' for ${type} log driver`);
    if (name === 'max-size') checkLogSize(type, value);
    if (name === 'max-file' && !(Number(value) >= 1)) throw badDriver('max-file cannot be less than 1');
    if (name === 'compress' && goBool(value) === undefined)
      throw badDriver(
        `error reading compress log option: strconv.ParseBool: parsing ${JSON.stringify(value)}: invalid syntax`,
      );
    if (name === 'mode' && value !== 'blocking' && value !== 'non-blocking')
      throw invalid(`logger: logging mode not supported: ${value}`);
    if (name !== 'max-buffer-size') continue;
    if (host.LogConfig?.Config?.mode !== 'non-blocking')
      throw invalid("logger: max-buffer-size option is only supported with 'mode=non-blocking'");
    sizeBytes(value);
  }
  const { compress = 'false', 'max-file': files = '1', 'max-size': size } = host.LogConfig?.Config ?? {};
  if (type === 'json-file' && goBool(compress) && (Number(files) < 2 || size === undefined))
    throw badDriver('compress cannot be true when max-file is less than 2 or max-size is not set');
}

/** What dockerd finds wrong only when the container starts. */
function badDriver(message: string): DrydockError {
  return invalid(`failed to initialize logging driver: ${message}`);
}

function checkLogSize(type: string, value: string): void {
  const bytes = goSize(value, 1000);
  if (bytes === undefined)
    throw badDriver(
      `${type === 'local' ? `invalid value for max-size: ${value}: ` : ''}invalid size: '${value}'`,
    );
  if (bytes <= 0) throw badDriver('max-size must be a positive number');
}

/** `10m`, `1g`, `4096` in bytes; see {@link goSize}. @throws ERR_BAD_PARAMETER */
export function sizeBytes(text: string, kilo?: 1000 | 1024): number {
  const bytes = goSize(text, kilo);
  if (bytes === undefined) throw invalid(`invalid size: '${text}'`);
  return bytes;
}

/** Wishes about resources that this host or runtime can't meet. */
function warnings(host: HostConfig): string[] {
  const found: string[] = [];
  const discard = (asked: unknown, text: string): void => {
    if (asked) found.push(text);
  };
  discard(
    host.KernelMemory,
    'Specifying a kernel memory limit is deprecated and will be removed in a future release.',
  );
  discard(host.KernelMemoryTCP, 'Kernel memory TCP limits are not supported. Limitation discarded.');
  discard(
    host.OomKillDisable && !host.Memory,
    'OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.',
  );
  discard(
    host.CpuCount || host.CpuPercent || host.IOMaximumIOps || host.IOMaximumBandwidth,
    'CpuCount, CpuPercent, IOMaximumIOps and IOMaximumBandwidth are for Windows only and were discarded.',
  );
  return found;
}
