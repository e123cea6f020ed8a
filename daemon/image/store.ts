/** What the rest of the daemon asks of images: the seam between daemon/container, daemon/api and daemon/image. */

import type { Readable } from 'node:stream';
import type { UserMaps } from '#common/id-map';
import type { Credentials } from './registry/auth.ts';
import type { FetchedDescriptor } from './registry/distribution.ts';

/** The `config` object of an OCI image configuration, with docker's additions. Field names as on the wire. */
export interface ImageConfig {
  User?: string;
  ExposedPorts?: Record<string, object>;
  Env?: string[];
  Entrypoint?: string[] | null;
  Cmd?: string[] | null;
  Volumes?: Record<string, object>;
  WorkingDir?: string;
  Labels?: Record<string, string>;
  StopSignal?: string;
  Shell?: string[];
  Healthcheck?: {
    Test?: string[];
    Interval?: number;
    Timeout?: number;
    StartPeriod?: number;
    StartInterval?: number;
    Retries?: number;
  };
  OnBuild?: string[];
  ArgsEscaped?: boolean;
}

/** One image, as stored. */
export interface Image {
  /** `sha256:` and 64 hex digits: the digest of its configuration. */
  id: string;
  /** `name:tag` references, normalised and in familiar form (`alpine:latest`). */
  tags: string[];
  /** `name@sha256:...` references. */
  digests: string[];
  config: ImageConfig;
  architecture: string;
  os: string;
  variant?: string;
  author?: string;
  comment?: string;
  /** RFC 3339. */
  created: string;
  history: {
    created?: string;
    created_by?: string;
    author?: string;
    comment?: string;
    empty_layer?: boolean;
  }[];
  /** Uncompressed layer digests, lowest first. */
  diffIds: string[];
  /** Unpacked bytes of each layer, lowest first. */
  layerBytes: number[];
  sizeBytes: number;
  /** The image that this one was built or committed from on this machine. */
  parent?: string;
  /** Milliseconds since the epoch; when it last got a name on this machine. */
  lastTaggedMs?: number;
}

/** The containers that were made from an image. */
export type ImageUsers = (imageId: string) => { id: string; running: boolean }[];

/** What became of a name or an image. */
export type Removed = { Untagged: string } | { Deleted: string };

export interface RemoveOptions {
  force: boolean;
  /** Also remove parents that nothing else needs. */
  prune: boolean;
  users: ImageUsers;
}

/** What happened to an image, for `docker events`. `action` as there: load, import, pull, tag, untag, delete, save. */
export interface ImageEvent {
  action: string;
  /** Image id; for pull and push the reference. */
  id: string;
  attributes: Record<string, string>;
}

/** What to make a new image of. */
export interface CommitOptions {
  containerId: string;
  /** The image that the container was made from; it need not exist any more. */
  parentId: string;
  /** The container's configuration; `changes` are applied to it. */
  config: ImageConfig;
  changes: string[];
  /** The command that ran, for the history. */
  createdBy: string;
  comment: string;
  author: string;
  /** A name for the image. */
  reference?: string;
}

/** A line of a progress stream, as docker's JSON messages. */
export interface Progress {
  id?: string;
  status?: string;
  stream?: string;
  progressDetail?: { current?: number; total?: number };
  aux?: unknown;
}

/** A wish that concerns a registry. */
export interface RegistryRequest {
  credentials: Credentials | undefined;
  progress: (line: Progress) => void;
  /** Aborted when the client has gone. */
  signal: AbortSignal;
}

/** Images and the layers they are made of. Errors are DrydockErrors: ERR_IMAGE_NOT_FOUND, ERR_IMAGE_CONFLICT, ERR_BAD_REFERENCE, ERR_BAD_ARCHIVE, ERR_NO_SPACE. */
export interface ImageStore {
  /** Finds by name, `name:tag`, `name@digest`, id or unique id prefix. @throws ERR_IMAGE_NOT_FOUND, ERR_AMBIGUOUS_ID */
  get(reference: string): Promise<Image>;
  list(): Promise<Image[]>;
  tag(reference: string, target: string): Promise<void>;
  /** As `docker rmi`: returns what was untagged and deleted. */
  remove(reference: string, options: RemoveOptions): Promise<Removed[]>;
  /** As `docker image prune`: removes what `matches` (dangling images, or all) and no container uses. */
  prune(
    matches: (image: Image) => boolean,
    users: ImageUsers,
  ): Promise<{ removed: Removed[]; reclaimedBytes: number }>;
  /** `docker load`: docker and OCI archives, plain, gzip or zstd. */
  load(archive: Readable, progress: (line: Progress) => void): Promise<Image[]>;
  /** `docker import`: a root file system as one layer. */
  importRoot(
    archive: Readable,
    options: {
      reference?: string;
      message?: string;
      changes: string[];
      platform?: string;
      /** Ends it: then there is no image. */
      signal?: AbortSignal;
    },
    progress: (line: Progress) => void,
  ): Promise<Image>;
  /** `docker save`. */
  save(references: string[]): Promise<Readable>;
  /** `docker commit`: what the container has written becomes a layer of a new image. Whoever calls pauses it. */
  commit(options: CommitOptions): Promise<Image>;
  /** `docker pull`; with `allTags` of the whole repository. Returns the ids. */
  pull(
    reference: string,
    request: RegistryRequest & { platform?: string; allTags?: boolean },
  ): Promise<string[]>;
  /** `docker push`. */
  push(reference: string, request: RegistryRequest & { allTags?: boolean }): Promise<void>;
  /** `docker login`. @throws ERR_UNAUTHORIZED */
  login(registry: string, credentials: Credentials): Promise<void>;
  /** What a registry has under a name, as GET /distribution/NAME/json answers it. */
  describeRemote(
    reference: string,
    request: Pick<RegistryRequest, 'credentials' | 'signal'>,
  ): Promise<FetchedDescriptor>;
  /** Folders of the image's unpacked layers, lowest first, for `docker inspect`. */
  layerPaths(imageId: string): string[];
}

/** The file systems of containers. */
export interface RootStore {
  /** Name for `docker info`: `overlay2`, `apfs`, `vfs`. */
  readonly driver: string;
  /** How the users of containers are those of the machine, when they are others: so are the owners of files. */
  readonly maps: UserMaps | undefined;
  /** Makes an empty writable layer over the image's layers. */
  create(containerId: string, imageId: string): Promise<void>;
  /** Mounts it and returns the path of the root. Idempotent. */
  mount(containerId: string): Promise<string>;
  unmount(containerId: string): Promise<void>;
  remove(containerId: string): Promise<void>;
  /** Its folders, as inspect tells them (GraphDriver.Data); null where there is nothing to tell. */
  places(containerId: string): Record<string, string> | null;
  /** Bytes in the writable layer, and in all layers together. */
  sizes(containerId: string): Promise<{ writableBytes: number; rootBytes: number }>;
  /** What the container has changed against its image: 0 modified, 1 added, 2 deleted. Absolute paths, in order. */
  changes(containerId: string): Promise<{ path: string; kind: 0 | 1 | 2 }[]>;
  /**
   * Removes mounts and folders of containers that `known` does not list; unmounts all others but those of `running`.
   * Returns what was done.
   */
  sweep(known: Set<string>, running?: ReadonlySet<string>): Promise<string[]>;
}
