/** What a container's record must look like: its parts that a client gave are of the shape that they were accepted in. */
import { createContainerBody } from '../api/schema.ts';
import { DIGEST, FLAG, NUMBER, record, type Shape, TEXT, TIME } from '../store/shape.ts';

const wish = createContainerBody as Shape;
const TEXTS: Shape = { type: 'array', items: TEXT };
const OBJECT: Shape = { type: 'object' };

const mount = record(
  {
    Type: { type: 'string', pattern: '^(bind|volume|tmpfs|image)$' },
    Source: TEXT,
    Destination: TEXT,
    Mode: TEXT,
    RW: FLAG,
    Propagation: TEXT,
  },
  {
    Name: TEXT,
    Driver: TEXT,
    consistency: TEXT,
    noCopy: FLAG,
    tmpfsOptions: TEXTS,
    subpath: TEXT,
    imageId: DIGEST,
    rootId: TEXT,
    spec: OBJECT,
    isOwn: FLAG,
    anonymous: FLAG,
  },
);

const health = record({ Status: TEXT, FailingStreak: NUMBER, Log: { type: 'array', items: OBJECT } });

const state = record(
  {
    status: { type: 'string', pattern: '^(created|running|paused|restarting|removing|exited|dead)$' },
    pid: NUMBER,
    pidStartTime: TEXT,
    exitCode: NUMBER,
    error: TEXT,
    oomKilled: FLAG,
    startedAt: TIME,
    finishedAt: TIME,
    restartCount: NUMBER,
    stoppedByUser: FLAG,
  },
  { health, survival: OBJECT, attached: OBJECT, hasEnded: FLAG },
);

/** See ContainerRecord. */
export const CONTAINER_SHAPE: Shape = record({
  id: TEXT,
  name: TEXT,
  created: TIME,
  imageId: DIGEST,
  config: { ...wish, type: 'object' },
  hostConfig: { ...wish.properties!.HostConfig, type: 'object' },
  args: TEXTS,
  mounts: { type: 'array', items: mount },
  networks: { type: 'object', additionalProperties: OBJECT },
  state,
});
