/**
 * The messages of BuildKit's control API and of its gateway (moby/buildkit api/services/control/control.proto,
 * api/types/worker.proto, frontend/gateway/pb/gateway.proto, solver/pb/ops.proto). Names and numbers as there; fields
 * that nothing here reads are left out, and are skipped when they come.
 */
import { Stat, Timestamp } from './messages.ts';
import {
  bool,
  bytes,
  bytesList,
  count,
  type Message,
  map,
  message,
  nested,
  repeated,
  string,
  strings,
  uint32,
} from './protobuf.ts';

/** A graph of operations: encoded {@link Op}s, the last of which names the result as its only input. */
export interface Definition {
  def: Uint8Array[];
  /** Notes on operations by their digest. Nothing here reads them, but clients refuse a graph without. */
  metadata: Map<string, Uint8Array>;
}
export const Definition: Message<Definition> = message({ def: [1, bytesList], metadata: [2, map(bytes)] });

const Input = message({ digest: [1, string], index: [2, count] });
const SourceOp = message({ identifier: [1, string], attrs: [2, map(string)] });

/** One operation. Only sources are read; the others are known by their being there. */
export interface Op {
  inputs: { digest: string; index: number }[];
  source: { identifier: string; attrs: Map<string, string> } | undefined;
}
export const Op: Message<Op, { inputs?: Op['inputs']; source?: NonNullable<Op['source']> }> = message({
  inputs: [1, repeated(Input)],
  source: [3, nested(SourceOp)],
});

const CacheOptionsEntry = message({ Type: [1, string], Attrs: [2, map(string)] });
const CacheOptions = message({
  Exports: [4, repeated(CacheOptionsEntry)],
  Imports: [5, repeated(CacheOptionsEntry)],
});
const Exporter = message({ Type: [1, string], Attrs: [2, map(string)] });

/** What is made of a build's result, or where its cache goes or comes from: a type and its options. */
export interface TypedOptions {
  Type: string;
  Attrs: Map<string, string>;
}

export interface SolveRequest {
  Ref: string;
  Definition: Definition | undefined;
  /** The way of older clients to name the one exporter. */
  Exporter: string;
  ExporterAttrs: Map<string, string>;
  Session: string;
  /** Empty when the client runs the frontend, and asks for parts of it by the gateway. */
  Frontend: string;
  FrontendAttrs: Map<string, string>;
  Cache: { Exports: TypedOptions[]; Imports: TypedOptions[] } | undefined;
  Entitlements: string[];
  FrontendInputs: Map<string, Definition | undefined>;
  Exporters: TypedOptions[];
}
export const SolveRequest: Message<SolveRequest> = message({
  Ref: [1, string],
  Definition: [2, nested(Definition)],
  Exporter: [3, string],
  ExporterAttrs: [4, map(string)],
  Session: [5, string],
  Frontend: [6, string],
  FrontendAttrs: [7, map(string)],
  Cache: [8, nested(CacheOptions)],
  Entitlements: [9, strings],
  FrontendInputs: [10, map(nested(Definition))],
  Exporters: [13, repeated(Exporter)],
});

export const SolveResponse: Message<{ ExporterResponse: Map<string, string> }> = message({
  ExporterResponse: [1, map(string)],
});

export const StatusRequest: Message<{ Ref: string }> = message({ Ref: [1, string] });

export const BytesMessage: Message<{ data: Uint8Array }> = message({ data: [1, bytes] });

const Platform = message({ Architecture: [1, string], OS: [2, string], Variant: [3, string] });
const BuildkitVersion = message({ package: [1, string], version: [2, string], revision: [3, string] });
const WorkerRecord = message({
  ID: [1, string],
  Labels: [2, map(string)],
  platforms: [3, repeated(Platform)],
  BuildkitVersion: [5, nested(BuildkitVersion)],
});
export const ListWorkersResponse: Message<
  unknown,
  {
    record: {
      ID: string;
      Labels: Map<string, string>;
      platforms: { Architecture: string; OS: string; Variant?: string }[];
      BuildkitVersion: { package: string; version: string };
    }[];
  }
> = message({ record: [1, repeated(WorkerRecord)] });

export const InfoResponse: Message<unknown, { buildkitVersion: { package: string; version: string } }> =
  message({
    buildkitVersion: [1, nested(BuildkitVersion)],
  });

/** A record of the build cache, as clients list it. */
export interface UsageRecord {
  ID: string;
  Mutable: boolean;
  InUse: boolean;
  Size: number;
  CreatedAt: Timestamp | undefined;
  LastUsedAt: Timestamp | undefined;
  UsageCount: number;
  Description: string;
  RecordType: string;
  Shared: boolean;
  Parents: string[];
}
export const UsageRecord: Message<UsageRecord> = message({
  ID: [1, string],
  Mutable: [2, bool],
  InUse: [3, bool],
  Size: [4, count],
  CreatedAt: [6, nested(Timestamp)],
  LastUsedAt: [7, nested(Timestamp)],
  UsageCount: [8, count],
  Description: [9, string],
  RecordType: [10, string],
  Shared: [11, bool],
  Parents: [12, strings],
});
export const DiskUsageRequest: Message<{ filter: string[] }> = message({ filter: [1, strings] });
export const DiskUsageResponse: Message<unknown, { record: Partial<UsageRecord>[] }> = message({
  record: [1, repeated(UsageRecord)],
});
export const PruneRequest: Message<{
  filter: string[];
  all: boolean;
  /** Nanoseconds. */
  keepDuration: number;
  keepBytes: number;
}> = message({ filter: [1, strings], all: [2, bool], keepDuration: [3, count], keepBytes: [4, count] });

const Ref: Message<{ id: string; def: Definition | undefined }> = message({
  id: [1, string],
  def: [2, nested(Definition)],
});
const RefMap = message({ refs: [1, map(nested(Ref))] });

/** What a frontend gives: a reference that later calls may name, and documents about it. */
export interface Result {
  ref: { id: string; def: Definition | undefined } | undefined;
  refs: { refs: Map<string, { id: string; def: Definition | undefined } | undefined> } | undefined;
  metadata: Map<string, Uint8Array>;
}
const Result: Message<Result> = message({
  ref: [3, nested(Ref)],
  refs: [4, nested(RefMap)],
  metadata: [10, map(bytes)],
});

/** google.rpc.Status */
const RpcStatus = message({ code: [1, uint32], message: [2, string] });

export const ReturnRequest: Message<{
  result: Result | undefined;
  error: { code: number; message: string } | undefined;
}> = message({ result: [1, nested(Result)], error: [2, nested(RpcStatus)] });

export interface GatewaySolveRequest {
  Definition: Definition | undefined;
  Frontend: string;
  FrontendOpt: Map<string, string>;
  FrontendInputs: Map<string, Definition | undefined>;
}
export const GatewaySolveRequest: Message<GatewaySolveRequest> = message({
  Definition: [1, nested(Definition)],
  Frontend: [2, string],
  FrontendOpt: [3, map(string)],
  FrontendInputs: [13, map(nested(Definition))],
});
export const GatewaySolveResponse: Message<unknown, { result?: Partial<Result> }> = message({
  result: [3, nested(Result)],
});

const APICap = message({ ID: [1, string], Enabled: [2, bool] });
export const PongResponse: Message<
  unknown,
  { FrontendAPICaps: { ID: string; Enabled: boolean }[]; LLBCaps: { ID: string; Enabled: boolean }[] }
> = message({ FrontendAPICaps: [1, repeated(APICap)], LLBCaps: [2, repeated(APICap)] });

const FileRange = message({ Offset: [1, count], Length: [2, count] });
export const ReadFileRequest: Message<{
  Ref: string;
  FilePath: string;
  Range: { Offset: number; Length: number } | undefined;
}> = message({ Ref: [1, string], FilePath: [2, string], Range: [3, nested(FileRange)] });
export const ReadFileResponse: Message<{ Data: Uint8Array }> = message({ Data: [1, bytes] });

export const ReadDirRequest: Message<{ Ref: string; DirPath: string; IncludePattern: string }> = message({
  Ref: [1, string],
  DirPath: [2, string],
  IncludePattern: [3, string],
});
export const ReadDirResponse: Message<unknown, { entries: Partial<Stat>[] }> = message({
  entries: [1, repeated(Stat)],
});
export const StatFileRequest: Message<{ Ref: string; Path: string }> = message({
  Ref: [1, string],
  Path: [2, string],
});
export const StatFileResponse: Message<unknown, { stat: Partial<Stat> }> = message({
  stat: [1, nested(Stat)],
});
export const EvaluateRequest: Message<{ Ref: string }> = message({ Ref: [1, string] });

export const ResolveImageConfigRequest: Message<{
  Ref: string;
  Platform: { Architecture: string; OS: string; Variant: string } | undefined;
  ResolveMode: string;
}> = message({ Ref: [1, string], Platform: [2, nested(Platform)], ResolveMode: [3, string] });
export const ResolveImageConfigResponse: Message<{ Digest: string; Config: Uint8Array; Ref: string }> =
  message({
    Digest: [1, string],
    Config: [2, bytes],
    Ref: [3, string],
  });
