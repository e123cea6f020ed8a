/**
 * Why our answers differ from those of the dockerd that Debian 12 has (20.10), where they do. Ours are those of a dockerd 28: most of
 * what is here changed between the two.
 */
import type { Difference } from './compare.ts';

/** One kind of difference. */
interface Explanation {
  why: string;
  covers(difference: Difference): boolean;
}

/** Statuses and bodies of a difference of statuses. */
function statuses({
  at,
  ours,
  theirs,
}: Difference): { ours: [number, unknown]; theirs: [number, unknown] } | undefined {
  if (at !== 'status') return undefined;
  return { ours: ours as [number, unknown], theirs: theirs as [number, unknown] };
}

/** A text without case, ids and the container's name for its id. */
const plain = (text: unknown): string =>
  String(text)
    .toLowerCase()
    .replace(/\b[0-9a-f]{64}\b/g, 'life');

/** How they begin. */
const TEXTS_OF_28 = [
  ...'JSON,reference format,filter,resize,restart policy,endpoint settings,config for network,network config,port spec'
    .split(',')
    .map((what) => `invalid ${what}`),
  ...'connect,kill,remove,resize,disconnect'.split(',').map((verb) => `cannot ${verb}`),
  ...'buildargs,labels,ulimit'.split(',').map((what) => `error reading ${what}`),
  'bad parameter: ',
  "bridge driver doesn't support multiple subnets",
  'Container cannot be created with multiple network endpoints',
  'container ID is not connected',
  'dockerfile parse error',
  'Error when allocating new name',
  'No such image',
  'the Dockerfile cannot be empty',
  'unknown or invalid runtime',
  'unsupported Content-Type',
];

const EXPLAINED: readonly Explanation[] = [
  {
    why: 'a bad request is answered by 400 to 404, which was 500',
    covers: (difference) => {
      const both = statuses(difference);
      return both !== undefined && both.theirs[0] === 500 && both.ours[0] >= 400 && both.ours[0] < 500;
    },
  },
  {
    why: 'what would fail at the start is refused at once, and what two users would fight over',
    covers: (difference) => {
      const both = statuses(difference);
      return both !== undefined && both.ours[0] >= 400 && [200, 201].includes(both.theirs[0]);
    },
  },
  {
    why: 'the same text, written in small letters or with the id for the name',
    covers: ({ ours, theirs }) =>
      typeof ours === 'string' && typeof theirs === 'string' && plain(ours) === plain(theirs),
  },
  {
    why: 'the same text with more of a reason',
    covers: ({ ours, theirs }) =>
      typeof ours === 'string' &&
      typeof theirs === 'string' &&
      theirs !== '' &&
      (plain(ours).startsWith(plain(theirs)) || plain(ours).endsWith(plain(theirs))),
  },
  {
    why: 'texts that are others in a dockerd 28',
    covers: ({ at, ours }) =>
      at === '.message' &&
      TEXTS_OF_28.some((start) =>
        String(ours)
          .replace(/\b[0-9a-f]{64}\b/, 'ID')
          .startsWith(start),
      ),
  },
  {
    why: 'what only one of the two has made, only it can remove',
    covers: (difference) => {
      const both = statuses(difference);
      if (!both || !difference.request.startsWith('DELETE')) return false;
      return [both.ours[0], both.theirs[0]].sort().join() === '204,404';
    },
  },
  {
    why: 'the default gateway is told; a network’s members are told when it can’t go; both made what one refused; the short id is an alias before the start too',
    covers: ({ request, at, ours }) =>
      (request === 'GET /networks/net' && at === '.IPAM.Config.0.Gateway' && ours === '10.76.0.1') ||
      (at === '.message' && String(ours).includes('has active endpoints')) ||
      /^\.NetworksDeleted\.length$|\.Aliases\.length$/.test(at),
  },
  {
    why: 'errors before a stream is one are JSON, and a stream has a type',
    covers: ({ request, at, ours }) =>
      (/attach$/.test(request) && ['', 'content-type'].includes(at)) ||
      (at === 'content-type' && ours === 'application/vnd.docker.raw-stream'),
  },
  {
    why: 'what follows a body is refused; a bad auxiliary address is a bad request',
    covers: (difference) => {
      const both = statuses(difference);
      return both !== undefined && both.ours[0] === 400 && [403, 404].includes(both.theirs[0]);
    },
  },
  {
    why: 'dockerd lays files of its own into a new root, and so changes the times of its folders',
    covers: ({ request }) => request === 'HEAD /containers/life/archive?path=/etc/',
  },
  {
    why: 'the cut of a progress stream into lines',
    covers: ({ request, at }) => request === 'POST /build' && /^\.(length|\d+\.)/.test(at),
  },
  {
    why: 'a pattern that is none matches nothing',
    covers: ({ request, at }) => request.startsWith('GET /images/json?filters=') && at === 'status',
  },
  {
    why: 'an image’s own configuration is told as its container’s too, for docker-compose 1; a load gives a name a time',
    covers: ({ at }) => /^\.ContainerConfig\.|^\.Metadata\.LastTagTime$/.test(at),
  },
  {
    why: 'options without effect are told',
    covers: ({ at }) => at === '.Warning',
  },
  {
    why: 'who the engine is, what it has and where, how much of the machine it sees used',
    covers: ({ request, at, ours }) =>
      /^GET \/(version|info)/.test(request) ||
      (/^\.GraphDriver\.Data\.\w+Dir$/.test(at) &&
        (typeof ours === 'string' || / \/images\//.test(request))) ||
      /^\.(GraphDriver\.Name|.*Path$|LogPath)|\.(SandboxKey|SandboxID|Pid|Mountpoint)$/.test(at) ||
      /\.HostConfig\.(Runtime|MaskedPaths|CgroupnsMode)/.test(at),
  },
  {
    why: 'measures of the moment',
    covers: ({ request, at }) =>
      / \S*(stats|top)/.test(request) || /Size|\.(Status|Created|Health.*)$/.test(at),
  },
  {
    why: 'a list of nothing is a list, where 20.10 said null or left it out; fields that came or went with a version',
    covers: ({ at, ours, theirs }) => isNothing(ours) && isNothing(theirs) && !/^\.(Id|message)$/.test(at),
  },
  {
    why: 'defaults have their real names, and a container knows the network that it will be on',
    covers: ({ at, ours }) =>
      (/\.NetworkMode$/.test(at) && ours === 'bridge') ||
      (/\.RestartPolicy\.Name$/.test(at) && ours === 'no') ||
      /\.Networks\.\w+\.(NetworkID|DNSNames)$|\.EnableIPv4$/.test(at),
  },
  {
    why: 'maps and sets have no order',
    covers: ({ at }) =>
      /\.Ports\.\d+\.|\.(Volumes|VolumesDeleted|NetworksDeleted)\.\d+/.test(at) ||
      /^\.\d+\.(Path|Kind)$/.test(at),
  },
  {
    why: 'the default network is not a bridge of the kernel: it has no options of one, and always a gateway; networks are listed by age',
    covers: ({ request, at }) =>
      /^GET \/networks(\/|\?| )(?!net)/.test(request) && /^(\.\d+)?\.(Name|Driver|IPAM|Options)/.test(at),
  },
  {
    why: 'Go’s time of never is told as none',
    covers: ({ request, at }) => /history/.test(request) && /Created/.test(at),
  },
];

function isNothing(value: unknown): boolean {
  return (
    value === undefined ||
    value === null ||
    value === 0 ||
    value === false ||
    value === '' ||
    (typeof value === 'object' && Object.keys(value).length === 0)
  );
}

/** The difference’s explanation, or undefined for one that has none. */
export function explanationOf(difference: Difference): string | undefined {
  return EXPLAINED.find(({ covers }) => covers(difference))?.why;
}
