/**
 * Shapes of request bodies, as JSON Schema for fastify's validator. They only say which type each field has, so that the
 * services can trust it; what values mean is checked there. Go's decoder takes null for any field and ignores fields it
 * does not know, and so does this.
 */
type Schema = Record<string, unknown>;

const text: Schema = { type: ['string', 'null'] };
const flag: Schema = { type: ['boolean', 'null'] };
const number: Schema = { type: ['integer', 'null'] };

function list(items: Schema): Schema {
  return { type: ['array', 'null'], items };
}

function map(values: Schema): Schema {
  return { type: ['object', 'null'], additionalProperties: values };
}

function object(properties: Record<string, Schema>): Schema {
  return { type: ['object', 'null'], properties };
}

function fields(type: Schema, names: string): Record<string, Schema> {
  return Object.fromEntries(names.split(' ').map((name) => [name, type]));
}

const anything: Schema = { type: ['object', 'null'] };
const texts = list({ type: 'string' });
const textMap = map({ type: 'string' });

const healthcheck = object({
  Test: texts,
  ...fields(number, 'Interval Timeout StartPeriod StartInterval Retries'),
});

const containerConfig: Record<string, Schema> = {
  ...fields(text, 'Hostname Domainname User Image WorkingDir MacAddress StopSignal'),
  ...fields(
    flag,
    'AttachStdin AttachStdout AttachStderr Tty OpenStdin StdinOnce NetworkDisabled ArgsEscaped',
  ),
  ...fields(texts, 'Env OnBuild Shell'),
  // A bare string is taken as a list of one, as moby's strslice does.
  ...fields({ type: ['array', 'string', 'null'], items: { type: 'string' } }, 'Cmd Entrypoint'),
  ...fields(map(anything), 'ExposedPorts Volumes'),
  Labels: textMap,
  StopTimeout: number,
  Healthcheck: healthcheck,
};

const mount = object({
  ...fields(text, 'Type Source Target Consistency'),
  ReadOnly: flag,
  BindOptions: object({
    Propagation: text,
    ...fields(flag, 'NonRecursive CreateMountpoint ReadOnlyNonRecursive ReadOnlyForceRecursive'),
  }),
  VolumeOptions: object({
    NoCopy: flag,
    Labels: textMap,
    Subpath: text,
    DriverConfig: object({ Name: text, Options: textMap }),
  }),
  TmpfsOptions: object({ SizeBytes: number, Mode: number, Options: list(texts) }),
  ImageOptions: object({ Subpath: text }),
});

const resources: Record<string, Schema> = {
  ...fields(
    number,
    'CpuShares Memory NanoCpus BlkioWeight CpuPeriod CpuQuota CpuRealtimePeriod CpuRealtimeRuntime MemoryReservation MemorySwap MemorySwappiness KernelMemory KernelMemoryTCP PidsLimit CpuCount CpuPercent IOMaximumIOps IOMaximumBandwidth',
  ),
  ...fields(text, 'CgroupParent CpusetCpus CpusetMems'),
  BlkioWeightDevice: list(object({ Path: text, Weight: number })),
  ...fields(
    list(object({ Path: text, Rate: number })),
    'BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps',
  ),
  DeviceRequests: list(anything),
  DeviceCgroupRules: texts,
  OomKillDisable: flag,
  Devices: list(object(fields(text, 'PathOnHost PathInContainer CgroupPermissions'))),
  Ulimits: list(object({ Name: text, Soft: number, Hard: number })),
  RestartPolicy: object({ Name: text, MaximumRetryCount: number }),
};

const hostConfig = object({
  ...resources,
  ...fields(
    text,
    'ContainerIDFile NetworkMode VolumeDriver CgroupnsMode IpcMode Cgroup PidMode UTSMode UsernsMode Runtime Isolation',
  ),
  ...fields(
    texts,
    'Binds VolumesFrom CapAdd CapDrop Dns DnsOptions DnsSearch ExtraHosts GroupAdd Links SecurityOpt MaskedPaths ReadonlyPaths',
  ),
  ...fields(flag, 'AutoRemove Privileged PublishAllPorts ReadonlyRootfs Init'),
  ...fields(textMap, 'StorageOpt Tmpfs Sysctls Annotations'),
  ...fields(number, 'OomScoreAdj ShmSize'),
  LogConfig: object({ Type: text, Config: textMap }),
  PortBindings: map(list(object({ HostIp: text, HostPort: text }))),
  Mounts: list(mount),
  ConsoleSize: list({ type: 'integer' }),
});

const endpoint = object({
  ...fields(text, 'MacAddress NetworkID EndpointID'),
  ...fields(texts, 'Links Aliases'),
  DriverOpts: textMap,
  GwPriority: number,
  IPAMConfig: object({ ...fields(text, 'IPv4Address IPv6Address'), LinkLocalIPs: texts }),
});

/** POST /containers/create */
export const createContainerBody: Schema = object({
  ...containerConfig,
  HostConfig: hostConfig,
  NetworkingConfig: object({ EndpointsConfig: map(endpoint) }),
});

/** POST /containers/ID/update */
export const updateContainerBody: Schema = object(resources);

/** POST /containers/ID/exec */
export const createExecBody: Schema = object({
  ...fields(flag, 'AttachStdin AttachStdout AttachStderr Tty Privileged'),
  ...fields(text, 'DetachKeys User WorkingDir'),
  ...fields(texts, 'Cmd Env'),
  ConsoleSize: list({ type: 'integer' }),
});

/** POST /exec/ID/start */
export const startExecBody: Schema = object({
  Detach: flag,
  Tty: flag,
  ConsoleSize: list({ type: 'integer' }),
});

/** POST /networks/create */
export const createNetworkBody: Schema = object({
  ...fields(text, 'Name Driver Scope'),
  ...fields(flag, 'Internal Attachable Ingress ConfigOnly EnableIPv4 EnableIPv6'),
  ...fields(textMap, 'Options Labels'),
  ConfigFrom: object({ Network: text }),
  IPAM: object({
    Driver: text,
    Options: textMap,
    Config: list(object({ ...fields(text, 'Subnet IPRange Gateway'), AuxiliaryAddresses: textMap })),
  }),
});

/** POST /networks/ID/connect and disconnect */
export const connectBody: Schema = object({ Container: text, Force: flag, EndpointConfig: endpoint });

/** POST /volumes/create */
export const createVolumeBody: Schema = object({
  ...fields(text, 'Name Driver'),
  ...fields(textMap, 'DriverOpts Labels'),
  ClusterVolumeSpec: anything,
});

/**
 * Gives a body the form that services read. Fields get the case that this API writes: Go's decoder takes `image` for `Image`, so
 * clients send it. A field that is null, and so nothing to Go's decoder, is left out; a null in a list of objects is an empty one.
 * Keys of maps (labels, ports) stay as they are, with what they have. Changes `value` in place.
 */
export function canonicalBody(schema: Schema, value: unknown): void {
  if (Array.isArray(value)) {
    const items = (schema.items ?? {}) as Schema;
    for (const [n, item] of value.entries()) {
      if (item === null && items.properties) value[n] = {};
      else canonicalBody(items, item);
    }
    return;
  }
  if (value === null || typeof value !== 'object') return;
  const properties = schema.properties as Record<string, Schema> | undefined;
  const object = value as Record<string, unknown>;
  for (const key of Object.keys(object)) {
    if (!properties) {
      canonicalBody((schema.additionalProperties ?? {}) as Schema, object[key]);
      continue;
    }
    const name = Object.hasOwn(properties, key) ? key : namesOf(properties).get(key.toLowerCase());
    if (name === undefined) continue;
    canonicalBody(properties[name]!, object[key]);
    if (name !== key || object[key] === null) {
      if (object[key] !== null) object[name] ??= object[key];
      delete object[key];
    }
  }
}

const lowerCased = new WeakMap<object, Map<string, string>>();

function namesOf(properties: Record<string, Schema>): Map<string, string> {
  const known = lowerCased.get(properties);
  if (known) return known;
  const made = new Map(Object.keys(properties).map((name) => [name.toLowerCase(), name]));
  lowerCased.set(properties, made);
  return made;
}
