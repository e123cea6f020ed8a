/**
 * The messages of BuildKit's API that are spoken here: moby/buildkit api/services/control/control.proto,
 * session/{filesync,auth}/*.proto, and tonistiigi/fsutil types/{stat,wire}.proto. Names and numbers as there.
 */
import {
  bool,
  bytes,
  count,
  int64,
  type Message,
  map,
  message,
  nested,
  repeated,
  string,
  uint32,
} from './protobuf.ts';

/** google.protobuf.Timestamp */
export interface Timestamp {
  seconds: number;
  nanos: number;
}
export const Timestamp: Message<Timestamp> = message({ seconds: [1, count], nanos: [2, uint32] });

/** A time in milliseconds since the epoch. */
export function timestamp(ms: number): Timestamp {
  const seconds = Math.floor(ms / 1000);
  return { seconds, nanos: Math.floor((ms - seconds * 1000) * 1e6) };
}

const Vertex = message({
  digest: [1, string],
  name: [3, string],
  cached: [4, bool],
  started: [5, nested(Timestamp)],
  completed: [6, nested(Timestamp)],
  error: [7, string],
});

const VertexStatus = message({
  ID: [1, string],
  vertex: [2, string],
  name: [3, string],
  current: [4, count],
  total: [5, count],
  timestamp: [6, nested(Timestamp)],
  started: [7, nested(Timestamp)],
  completed: [8, nested(Timestamp)],
});

const VertexLog = message({
  vertex: [1, string],
  timestamp: [2, nested(Timestamp)],
  stream: [3, count],
  msg: [4, bytes],
});

/** A step of a build. Times that have not come are left out. */
export interface VertexInput {
  digest: string;
  name: string;
  cached?: boolean;
  started?: Timestamp;
  completed?: Timestamp;
  error?: string;
}

/** Something inside a step. */
export interface StatusInput {
  ID: string;
  vertex: string;
  name: string;
  current: number;
  total: number;
  timestamp: Timestamp;
  started?: Timestamp;
  completed?: Timestamp;
}

/** Output of a step. */
export interface LogInput {
  vertex: string;
  timestamp: Timestamp;
  /** 1 standard output, 2 standard error. */
  stream: number;
  msg: Uint8Array;
}

/** What the client shows of a build. */
export interface StatusInputs {
  vertexes?: VertexInput[];
  statuses?: StatusInput[];
  logs?: LogInput[];
}
export const StatusResponse: Pick<Message<unknown, StatusInputs>, 'encode'> = message({
  vertexes: [1, repeated(Vertex)],
  statuses: [2, repeated(VertexStatus)],
  logs: [3, repeated(VertexLog)],
});

/** A file's description; `mode` has Go's FileMode bits, `modTime` is in nanoseconds. */
export interface Stat {
  path: string;
  mode: number;
  uid: number;
  gid: number;
  size: number;
  modTime: bigint;
  linkname: string;
  devmajor: number;
  devminor: number;
  xattrs: Map<string, Uint8Array>;
}
export const Stat: Message<Stat> = message({
  path: [1, string],
  mode: [2, uint32],
  uid: [3, uint32],
  gid: [4, uint32],
  size: [5, count],
  modTime: [6, int64],
  linkname: [7, string],
  devmajor: [8, count],
  devminor: [9, count],
  xattrs: [10, map(bytes)],
});

/** The kinds of {@link Packet}. */
export const PACKET = { stat: 0, request: 1, data: 2, fin: 3, error: 4 } as const;

/** What goes both ways while files are sent; a `stat` without a description ends the list. */
export interface Packet {
  type: number;
  stat: Stat | undefined;
  ID: number;
  data: Uint8Array;
}
export const Packet: Message<Packet, Partial<Omit<Packet, 'stat'>> & { stat?: Partial<Stat> }> = message({
  type: [1, uint32],
  stat: [2, nested(Stat)],
  ID: [3, uint32],
  data: [4, bytes],
});

export const CredentialsRequest: Message<{ Host: string }> = message({ Host: [1, string] });
export const CredentialsResponse: Message<{ Username: string; Secret: string }> = message({
  Username: [1, string],
  Secret: [2, string],
});

/** moby.buildkit.secrets.v1; the answer is a BytesMessage. */
export const GetSecretRequest: Message<{ ID: string }> = message({ ID: [1, string] });
/** moby.sshforward.v1.CheckAgentRequest */
export const SshRequest: Message<{ ID: string }> = message({ ID: [1, string] });
