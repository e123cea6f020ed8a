/**
 * From `-v`, `--mount`, `--tmpfs` and an image's VOLUME lines to one list of mounts, by destination. Pure: whether a
 * path exists and what a volume is called is decided later, by mounts/service.ts. Texts are moby's (volume/mounts/linux_parser.go).
 */
import { posix } from 'node:path';
import { DrydockError } from '#common/errors';
import type { HostConfig, MountPoint, MountRequest } from '../container/types.ts';

/** Options after the second colon of `-v`. */
const CONSISTENCIES = new Set(['consistent', 'cached', 'delegated', 'default']);
const PROPAGATIONS = new Set(['private', 'rprivate', 'slave', 'rslave', 'shared', 'rshared']);

/** Names of volumes, as moby's names.RestrictedNamePattern. */
export const VOLUME_NAME: RegExp = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

function invalid(message: string): DrydockError {
  return new DrydockError('ERR_BAD_PARAMETER', message);
}

function cleanDestination(path: string, spec: string, type: 'bind' | 'volume' = 'volume'): string {
  const text = path.trim();
  if (text === '') throw invalid(`invalid volume specification: '${spec}'`);
  if (!text.startsWith('/'))
    throw invalid(
      `invalid volume specification: '${spec}': invalid mount config for type "${type}": invalid mount path: '${text}' mount path must be absolute`,
    );
  const clean = posix.normalize(text).replace(/(.)\/$/, '$1');
  if (clean === '/')
    throw invalid(
      `invalid volume specification: '${spec}': invalid mount config for type "${type}": invalid specification: destination can't be '/'`,
    );
  return clean;
}

/** Parses `source:destination[:mode]` or `destination`. */
export function parseBind(spec: string): MountPoint {
  const parts = spec.split(':');
  if (parts.length > 3 || parts[0] === '') throw invalid(`invalid volume specification: '${spec}'`);
  if (parts.length === 1)
    return volumePoint({
      name: '',
      destination: cleanDestination(parts[0]!, spec),
      mode: '',
      readOnly: false,
      noCopy: false,
    });
  // `/a:ro` can't be told from a destination: docker takes the second part as one and finds it is not absolute.
  const [source, target, mode = ''] = parts as [string, string, string?];
  const isHost = source.startsWith('/');
  const destination = cleanDestination(target, spec, isHost ? 'bind' : 'volume');
  const options = mode === '' ? [] : mode.split(',');
  checkMode(options, isHost);
  const readOnly = options.includes('ro');
  if (!isHost) {
    if (!VOLUME_NAME.test(source))
      throw invalid(
        `create ${source}: "${source}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`,
      );
    // moby's default for volumes.
    return volumePoint({
      name: source,
      destination,
      mode: mode || 'z',
      readOnly,
      noCopy: options.includes('nocopy'),
    });
  }
  return {
    Type: 'bind',
    Source: posix.normalize(source).replace(/(.)\/$/, '$1'),
    Destination: destination,
    Mode: mode,
    RW: !readOnly,
    Propagation: options.find((o) => PROPAGATIONS.has(o)) ?? 'rprivate',
    consistency: consistencyOf(options.find((o) => CONSISTENCIES.has(o))),
  };
}

function checkMode(options: string[], isHost: boolean): void {
  const groups: [string, (option: string) => boolean][] = [
    ['access', (o) => o === 'ro' || o === 'rw'],
    ['label', (o) => o === 'z' || o === 'Z'],
    ['copy', (o) => o === 'nocopy' && !isHost],
    ['propagation', (o) => PROPAGATIONS.has(o) && isHost],
    ['consistency', (o) => CONSISTENCIES.has(o)],
  ];
  const seen = new Set<string>();
  for (const option of options) {
    const group = groups.find(([, test]) => test(option))?.[0];
    if (group === undefined || seen.has(group)) throw invalid(`invalid mode: ${options.join(',')}`);
    seen.add(group);
  }
}

function consistencyOf(text: string | undefined): 'consistent' | 'cached' | 'delegated' {
  return text === 'cached' || text === 'delegated' ? text : 'consistent';
}

function volumePoint(wish: {
  name: string;
  destination: string;
  mode: string;
  readOnly: boolean;
  noCopy: boolean;
}): MountPoint {
  return {
    Type: 'volume',
    Name: wish.name,
    Source: '',
    Destination: wish.destination,
    Driver: 'local',
    Mode: wish.mode,
    RW: !wish.readOnly,
    Propagation: '',
    noCopy: wish.noCopy,
    anonymous: wish.name === '',
  };
}

/** Translates one entry of HostConfig.Mounts. */
export function parseMount(request: MountRequest): MountPoint {
  const type = request.Type ?? '';
  const bad = (text: string): DrydockError => invalid(`invalid mount config for type "${type}": ${text}`);
  const target = request.Target ?? '';
  if (target === '') throw bad('field Target must not be empty');
  const destination = posix.normalize(target).replace(/(.)\/$/, '$1');
  if (!target.startsWith('/')) throw bad(`invalid mount path: '${target}' mount path must be absolute`);
  if (destination === '/') throw bad("invalid specification: destination can't be '/'");
  const foreign: [string, unknown, string][] = [
    ['BindOptions', request.BindOptions, 'bind'],
    ['VolumeOptions', request.VolumeOptions, 'volume'],
    ['TmpfsOptions', request.TmpfsOptions, 'tmpfs'],
    ['ImageOptions', request.ImageOptions, 'image'],
  ];
  for (const [field, value, owner] of foreign)
    if (value !== undefined && value !== null && type !== owner)
      throw bad(`field ${field} must not be specified`);
  const readOnly = request.ReadOnly === true;
  switch (type) {
    case 'bind':
      return bindMount(request, destination, readOnly, bad);
    case 'volume':
      return volumeMount(request, destination, readOnly, bad);
    case 'tmpfs':
      if (request.Source) throw bad('field Source must not be specified');
      return tmpfsPoint(destination, tmpfsMountOptions(request, bad), readOnly, request);
    case 'image':
      return imageMount(request, destination, bad);
    default:
      throw bad('mount type unknown');
  }
}

function bindMount(
  request: MountRequest,
  destination: string,
  readOnly: boolean,
  bad: (text: string) => DrydockError,
): MountPoint {
  const source = request.Source ?? '';
  if (source === '') throw bad('field Source must not be empty');
  if (!source.startsWith('/')) throw bad(`invalid mount path: '${source}' mount path must be absolute`);
  const { ReadOnlyNonRecursive, ReadOnlyForceRecursive } = request.BindOptions ?? {};
  if (ReadOnlyNonRecursive && ReadOnlyForceRecursive)
    throw invalid('mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive');
  const propagation = request.BindOptions?.Propagation || 'rprivate';
  if (!PROPAGATIONS.has(propagation)) throw bad(`invalid propagation mode: ${propagation}`);
  if (readOnly && ReadOnlyNonRecursive && spreads(propagation))
    throw new DrydockError(
      'ERR_NOT_IMPLEMENTED',
      `a mount that is read-only at its top alone can't have the propagation ${propagation}: leave one of the two out`,
    );
  return {
    Type: 'bind',
    Source: posix.normalize(source).replace(/(.)\/$/, '$1'),
    Destination: destination,
    Mode: '',
    RW: !readOnly,
    Propagation: propagation,
    consistency: consistencyOf(request.Consistency),
    spec: request,
  };
}

/** Whether mounts made on one side are to appear on the other: only the kernel's own bind mounts do that. */
export function spreads(propagation: string): boolean {
  return /^r?(shared|slave)$/.test(propagation);
}

/** An image's files, which the container can't change, as in moby. */
function imageMount(
  request: MountRequest,
  destination: string,
  bad: (text: string) => DrydockError,
): MountPoint {
  const source = request.Source ?? '';
  if (source === '') throw bad('field Source must not be empty');
  return {
    Type: 'image',
    Name: source,
    Source: '',
    Destination: destination,
    Mode: '',
    RW: false,
    Propagation: 'rprivate',
    subpath: localPath(request.ImageOptions?.Subpath, bad),
    spec: request,
  };
}

/** A path that stays below where it starts. */
function localPath(path: string | undefined, bad: (text: string) => DrydockError): string {
  const text = path ?? '';
  if (text !== '' && (text.startsWith('/') || /^\.\.(\/|$)/.test(posix.normalize(text))))
    throw bad('subpath must be a relative path within the volume');
  return text;
}

function volumeMount(
  request: MountRequest,
  destination: string,
  readOnly: boolean,
  bad: (text: string) => DrydockError,
): MountPoint {
  const name = request.Source ?? '';
  if (name !== '' && !VOLUME_NAME.test(name))
    throw invalid(
      `create ${name}: "${name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`,
    );
  const driver = request.VolumeOptions?.DriverConfig?.Name || 'local';
  const subpath = localPath(request.VolumeOptions?.Subpath, bad);
  if (subpath !== '' && name === '') throw bad('must not set Subpath when using anonymous volumes');
  if (readOnly && name === '') throw bad('must not set ReadOnly mode when using anonymous volumes');
  return {
    ...volumePoint({
      name,
      destination,
      mode: 'z',
      readOnly,
      noCopy: request.VolumeOptions?.NoCopy === true,
    }),
    Driver: driver,
    subpath,
    spec: request,
  };
}

function tmpfsMountOptions(request: MountRequest, bad: (text: string) => DrydockError): string[] {
  const { SizeBytes = 0, Mode, Options = [] } = request.TmpfsOptions ?? {};
  if (SizeBytes < 0) throw bad('size must not be negative');
  const options = ['nosuid', 'nodev', 'noexec'];
  if (SizeBytes > 0) options.push(`size=${SizeBytes}`);
  if (Mode) options.push(`mode=${Mode.toString(8)}`);
  for (const option of Options) options.push(checkTmpfsOption(option.join('=')));
  return options;
}

const TMPFS_OPTION =
  /^(size=\d+[kmg%]?|mode=[0-7]{3,4}|uid=\d+|gid=\d+|nr_inodes=\d+[kmg]?|nr_blocks=\d+[kmg]?|exec|noexec|suid|nosuid|dev|nodev|rw|ro|sync|async|atime|noatime|diratime|nodiratime|relatime|norelatime|strictatime|nostrictatime|defaults)$/i;

function checkTmpfsOption(option: string): string {
  if (!TMPFS_OPTION.test(option)) throw invalid(`invalid tmpfs option [${JSON.stringify(option)}]`);
  return option;
}

function tmpfsPoint(
  destination: string,
  options: string[],
  readOnly: boolean,
  spec?: MountRequest,
): MountPoint {
  const point: MountPoint = {
    Type: 'tmpfs',
    Source: '',
    Destination: destination,
    Mode: '',
    RW: !readOnly,
    Propagation: '',
    tmpfsOptions: options,
  };
  if (spec) point.spec = spec;
  return point;
}

/** Later options win, as in mount(8): `exec` after docker's default `noexec`. */
function mergeTmpfsOptions(text: string): { options: string[]; readOnly: boolean } {
  const asked = text === '' ? [] : text.split(',').map(checkTmpfsOption);
  const negated = (option: string): string => (option.startsWith('no') ? option.slice(2) : `no${option}`);
  const defaults = ['noexec', 'nosuid', 'nodev'].filter(
    (o) => !asked.includes(negated(o)) && !asked.includes(o),
  );
  const options = [...defaults, ...asked].filter(
    (o) => !['ro', 'rw', 'defaults', 'exec', 'suid', 'dev'].includes(o),
  );
  return { options, readOnly: asked.includes('ro') };
}

/**
 * Mounts that a container takes over from others (VolumesFrom).
 * @param mountsOf those of another container
 */
export function inheritedMounts(
  host: HostConfig,
  mountsOf: (reference: string) => MountPoint[],
): MountPoint[] {
  return (host.VolumesFrom ?? []).flatMap((entry) => {
    if (entry === '') throw invalid('volumes-from specification cannot be an empty string');
    const [reference = '', mode = ''] = entry.split(':');
    if (!['', 'ro', 'rw', 'z', 'Z'].includes(mode)) throw invalid(`invalid mode: ${mode}`);
    return mountsOf(reference)
      .filter((point) => point.Type === 'bind' || point.Type === 'volume')
      .map((point) => ({ ...point, RW: mode === 'ro' ? false : point.RW, anonymous: false, noCopy: true }));
  });
}

/**
 * All mounts of a container, one per destination: Binds and Mounts may not share one; both go before the mounts taken
 * over from other containers, these before the image's volumes.
 *
 * @param inherited mounts of the `VolumesFrom` containers, their mode already applied
 * @param own mounts of the daemon's
 */
export function collectMounts(
  host: HostConfig,
  imageVolumes: Record<string, object> | undefined,
  inherited: MountPoint[],
  own: readonly MountPoint[] = [],
): MountPoint[] {
  const found = new Map<string, MountPoint>();
  for (const point of inherited) found.set(point.Destination, point);
  const asked = new Set<string>();
  const add = (point: MountPoint): void => {
    if (asked.has(point.Destination)) throw invalid(`Duplicate mount point: ${point.Destination}`);
    asked.add(point.Destination);
    found.set(point.Destination, point);
  };
  for (const point of own) add(point);
  for (const bind of host.Binds ?? []) add(parseBind(bind));
  for (const mount of host.Mounts ?? []) add(parseMount(mount));
  for (const [path, text] of Object.entries(host.Tmpfs ?? {})) {
    const { options, readOnly } = mergeTmpfsOptions(text);
    if (!path.startsWith('/')) throw invalid(`invalid mount path: '${path}' mount path must be absolute`);
    if (posix.normalize(path) === '/') throw invalid("invalid specification: destination can't be '/'");
    add(tmpfsPoint(cleanDestination(path, path), options, readOnly));
  }
  for (const path of Object.keys(imageVolumes ?? {})) {
    // An image may name one that is relative: it begins at the root (moby: GetResourcePath).
    const destination = cleanDestination(posix.join('/', path), path);
    if (found.has(destination)) continue;
    found.set(destination, volumePoint({ name: '', destination, mode: '', readOnly: false, noCopy: false }));
  }
  // --volume-driver is for what was not given as a --mount.
  for (const point of found.values())
    if (point.Type === 'volume' && !point.spec && host.VolumeDriver) point.Driver = host.VolumeDriver;
  // A mount inside another must come after it.
  return [...found.values()].sort((a, b) => depth(a.Destination) - depth(b.Destination));
}

function depth(path: string): number {
  return path.split('/').length;
}
