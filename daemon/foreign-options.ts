/**
 * dockerd's options that this daemon has not. They are known by name, so that a daemon.json or a unit file made for dockerd
 * is told what happens to each of them: one that promises something is refused, one that only tunes what does not exist
 * here is accepted with a warning.
 */
import { DrydockError } from '#common/errors';

/** One option of dockerd's. */
export interface ForeignOption {
  /** The flag's name without dashes; undefined for keys that only daemon.json has. */
  flag?: string;
  /** The key in daemon.json; undefined for what only the command line has. */
  key?: string;
  /** Why it is refused, or why it has no effect. */
  why: string;
  refused: boolean;
  /** The flag takes no value of its own. */
  bare?: true;
}

const refused = (flag: string, why: string, more: Partial<ForeignOption> = {}): ForeignOption => ({
  flag,
  key: flag,
  why,
  refused: true,
  ...more,
});
const without = (flag: string, why: string, more: Partial<ForeignOption> = {}): ForeignOption => ({
  ...refused(flag, why, more),
  refused: false,
});

const NO_BRIDGE = 'networks are not made of kernel bridges';
const NO_CONTAINERD = 'there is no containerd';
const NO_SWARM = 'this daemon can not be part of a swarm';
const bare = { bare: true } as const;

/** All of them. */
export const FOREIGN_OPTIONS: readonly ForeignOption[] = [
  refused('authorization-plugin', 'there are no plugins', { key: 'authorization-plugins' }),
  refused('selinux-enabled', 'SELinux labels are not set', bare),
  refused('cpu-rt-period', 'there is no realtime budget', {}),
  refused('cpu-rt-runtime', 'there is no realtime budget', {}),
  refused('api-cors-header', 'dockerd has dropped it as unsafe'),
  refused('oom-score-adjust', 'set it where the daemon is started (OOMScoreAdjust= of its unit)'),
  refused('storage-opt', 'the storage drivers have no options', { key: 'storage-opts' }),
  refused('node-generic-resource', NO_SWARM, { key: 'node-generic-resources' }),
  refused('swarm-default-advertise-addr', NO_SWARM),
  refused('rootless', 'start the daemon as root', { key: undefined, bare: true }),
  without('iptables', 'no firewall rules are made', bare),
  without('ip6tables', 'no firewall rules are made', bare),
  without('ip-forward', 'packets are not forwarded by the kernel', bare),
  without('ip-masq', 'packets are not forwarded by the kernel', bare),
  without('firewall-backend', 'no firewall rules are made'),
  without('allow-direct-routing', NO_BRIDGE, bare),
  without('bridge-accept-fwmark', NO_BRIDGE),
  without('userland-proxy', 'published ports are served by the daemon itself', bare),
  without('userland-proxy-path', 'published ports are served by the daemon itself'),
  without('init-path', 'the init of --init is part of the daemon'),
  without('containerd', NO_CONTAINERD),
  without('containerd-namespace', NO_CONTAINERD),
  without('containerd-plugins-namespace', NO_CONTAINERD, { key: 'containerd-plugin-namespace' }),
  without('cri-containerd', NO_CONTAINERD, { key: undefined, bare: true }),
  without('network-control-plane-mtu', NO_SWARM),
  without('experimental', 'there is nothing experimental', bare),
  without('raw-logs', 'the log has full timestamps and no colours anyway', bare),
  without('allow-nondistributable-artifacts', 'layers that may not be distributed are never pushed'),
  without('cdi-spec-dir', 'there are no CDI devices', { key: 'cdi-spec-dirs' }),
  without('network-diagnostic-port', NO_SWARM, { flag: undefined }),
];

/** An option with the value that a source gives it. */
export interface ForeignUse {
  option: ForeignOption;
  /** As daemon.json has it; flags are texts, or true for one without a value. */
  value: unknown;
}

/** Whether a value asks for nothing: a daemon.json may spell out dockerd's defaults. */
function isOff(value: unknown): boolean {
  if (value === null || typeof value !== 'object')
    return [false, 'false', '', 0, '0', null].includes(value as never);
  return Object.keys(value).length === 0;
}

/**
 * What to say of the options that a source uses.
 * @returns warnings @throws ERR_BAD_CONFIG naming each one that is refused
 */
export function judgeForeign(uses: readonly ForeignUse[], source: 'flag' | 'key'): string[] {
  const name = (option: ForeignOption): string => (source === 'flag' ? `--${option.flag}` : option.key!);
  const options = uses
    .filter(({ option, value }) => !(option.refused && isOff(value)))
    .map(({ option }) => option);
  const bad = options.filter((option) => option.refused);
  if (bad.length > 0)
    throw new DrydockError(
      'ERR_BAD_CONFIG',
      bad.map((option) => `${name(option)} is not supported: ${option.why}`).join('\n'),
    );
  return options.map((option) => `${name(option)} has no effect: ${option.why}`);
}
