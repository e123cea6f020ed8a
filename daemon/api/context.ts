/** What the API's plugins work with: the daemon's services, made once in daemon/index.ts. */
import type { Clock } from '#common/clock';
import type { Log } from '#common/log';
import type { ArchiveThreads } from '../archive/threads.ts';
import type { SessionBuilds } from '../build/buildkit/build.ts';
import type { GrpcServer } from '../build/buildkit/grpc.ts';
import type { Builds } from '../build/service.ts';
import type { ExecService } from '../container/exec.ts';
import type { ContainerService } from '../container/service.ts';
import type { EventBus } from '../events/bus.ts';
import type { ImageStore, ImageUsers, RootStore } from '../image/store.ts';
import type { MountService } from '../mounts/service.ts';
import type { NetworkService } from '../network/service.ts';
import type { SystemService } from '../system.ts';
import type { VolumeService } from '../volume/service.ts';

/** The daemon, as its API sees it. */
export interface ApiContext {
  /** Drydock's own version. */
  readonly version: string;
  /** The oldest version of the API that is answered: 24 for 1.24. */
  readonly minorMin: number;
  /** What clients are recommended to build with: `1` the classic builder, `2` BuildKit. */
  readonly builderVersion: () => '1' | '2';
  readonly images: ImageStore;
  readonly roots: RootStore;
  readonly builds: Builds;
  /** Builds of clients that speak BuildKit's protocol. */
  readonly sessionBuilds: SessionBuilds;
  /** BuildKit's control API. */
  readonly buildKit: GrpcServer;
  readonly archiveThreads: ArchiveThreads;
  readonly containers: ContainerService;
  readonly execs: ExecService;
  readonly networks: NetworkService;
  readonly volumes: VolumeService;
  readonly mounts: MountService;
  readonly system: SystemService;
  readonly events: EventBus;
  readonly clock: Clock;
  readonly log: Log;
  /** The containers that were made from an image. */
  readonly imageUsers: ImageUsers;
}
