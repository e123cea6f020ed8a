/** What surrounds a daemon on any platform: configuration, disk, name servers, proxies, sockets and other engines. */
import { connect } from 'node:net';
import { errorMessage } from '#common/errors';
import { effectiveConfig, parseConfigFile, parseHost } from '../../config.ts';
import { CONFIG_FILE_DEFAULT, type DaemonConfig, DEFAULTS } from '../../config-options.ts';
import type { Finding, HostView } from './host.ts';

const GIB: number = 1024 ** 3;
const FREE_BYTES_WANTED: number = 5 * GIB;
const FREE_BYTES_MIN: number = 1 * GIB;
const FREE_INODES_SHARE_MIN = 0.05;
const NODE_MAJOR_MIN = 20;

/** Node and rights. */
export function programFindings(host: HostView): Finding[] {
  const part = 'program';
  const major = Number.parseInt(host.nodeVersion.slice(1), 10);
  return [
    major >= NODE_MAJOR_MIN
      ? { part, name: 'node', status: 'ok', text: host.nodeVersion }
      : {
          part,
          name: 'node',
          status: 'fail',
          text: `${host.nodeVersion} is too old`,
          fix: `Install Node ${NODE_MAJOR_MIN} or later.`,
        },
    host.uid === 0
      ? { part, name: 'rights', status: 'ok', text: 'root' }
      : {
          part,
          name: 'rights',
          status: 'warn',
          text:
            host.platform === 'linux'
              ? 'an ordinary user: the daemon runs in a user namespace, without limits of memory, processor and processes'
              : 'the daemon needs root, and some checks say less without it',
          fix: 'For all of it, use sudo.',
        },
  ];
}

/** The configuration file, and what it makes of the defaults. */
export function configuration(host: HostView): { config: DaemonConfig; findings: Finding[] } {
  const part = 'program';
  const name = 'configuration';
  const text = host.read(CONFIG_FILE_DEFAULT);
  if (text === undefined)
    return {
      config: DEFAULTS,
      findings: [{ part, name, status: 'ok', text: `the defaults: there is no ${CONFIG_FILE_DEFAULT}` }],
    };
  try {
    const config = effectiveConfig({}, parseConfigFile(text));
    return { config, findings: [{ part, name, status: 'ok', text: `${CONFIG_FILE_DEFAULT} is valid` }] };
  } catch (error) {
    return {
      config: DEFAULTS,
      findings: [
        {
          part,
          name,
          status: 'fail',
          text: errorMessage(error),
          fix: `Correct ${CONFIG_FILE_DEFAULT}, then: drydock daemon --validate`,
        },
      ],
    };
  }
}

/** Room for images. */
export function diskFindings(host: HostView, config: DaemonConfig): Finding[] {
  const part = 'disk';
  const name = config.dataRoot;
  const room = host.room(config.dataRoot);
  if (!room)
    return [{ part, name, status: 'fail', text: 'cannot be looked at', fix: 'Choose another --data-root.' }];
  const free = `${(room.freeBytes / GIB).toFixed(1)} GiB free`;
  const fix = 'Remove what is not used (docker system prune), or move --data-root to a larger disk.';
  if (room.freeBytes < FREE_BYTES_MIN) return [{ part, name, status: 'fail', text: free, fix }];
  if (room.freeBytes < FREE_BYTES_WANTED) return [{ part, name, status: 'warn', text: free, fix }];
  if (room.freeInodesShare < FREE_INODES_SHARE_MIN)
    return [{ part, name, status: 'warn', text: `${free}, but hardly an inode`, fix }];
  return [{ part, name, status: 'ok', text: free }];
}

/** Name servers of the host: containers' questions go on to them. */
export function dnsFindings(host: HostView, config: DaemonConfig): Finding[] {
  const part = 'network';
  const name = 'name servers';
  const servers =
    config.dns.length > 0
      ? config.dns
      : [...(host.read('/etc/resolv.conf') ?? '').matchAll(/^nameserver\s+(\S+)/gm)].map(
          ([, server]) => server!,
        );
  if (servers.length > 0) return [{ part, name, status: 'ok', text: servers.join(', ') }];
  return [
    {
      part,
      name,
      status: 'warn',
      text: 'none in /etc/resolv.conf: containers resolve nothing but each other',
      fix: 'Add a nameserver line, or start the daemon with --dns ADDRESS.',
    },
  ];
}

const PROXY_VARIABLES = ['HTTP_PROXY', 'HTTPS_PROXY'] as const;

/** A proxy's address without its password. */
function shownProxy(text: string): string | undefined {
  try {
    const { protocol, host } = new URL(text);
    return host === '' ? undefined : `${protocol}//${host}`;
  } catch {
    return undefined;
  }
}

/** Proxies of the environment: docker pull goes by them. */
export function proxyFindings(host: HostView): Finding[] {
  const part = 'network';
  const found = PROXY_VARIABLES.flatMap((name) => {
    const value = host.env[name] || host.env[name.toLowerCase()];
    return value ? [{ name, value }] : [];
  });
  if (found.length === 0) return [{ part, name: 'proxies', status: 'ok', text: 'none are set' }];
  const findings = found.map(({ name, value }): Finding => {
    const shown = shownProxy(value);
    if (shown !== undefined) return { part, name, status: 'ok', text: shown };
    return {
      part,
      name,
      status: 'fail',
      text: 'is no URL of a proxy',
      fix: `Write it like http://proxy.example:3128, or unset ${name}.`,
    };
  });
  if (!host.env.NO_PROXY && !host.env.no_proxy)
    findings.push({
      part,
      name: 'NO_PROXY',
      status: 'warn',
      text: 'is not set: registries on this machine are asked through the proxy, too',
      fix: 'Run: export NO_PROXY=localhost,127.0.0.1',
    });
  return findings;
}

/** Sockets where engines are used to be. */
function wellKnownSockets({ home, env, list }: HostView): string[] {
  const runtime = env.XDG_RUNTIME_DIR;
  return [
    '/var/run/docker.sock',
    '/run/podman/podman.sock',
    ...(runtime ? [`${runtime}/docker.sock`, `${runtime}/podman/podman.sock`] : []),
    `${home}/.docker/run/docker.sock`,
    `${home}/.rd/docker.sock`,
    `${home}/.orbstack/run/docker.sock`,
    ...list(`${home}/.colima`).map((profile) => `${home}/.colima/${profile}/docker.sock`),
    ...list(`${home}/.lima`).map((instance) => `${home}/.lima/${instance}/sock/docker.sock`),
  ];
}

/** Whether somebody listens at a TCP address of this host. */
function listens(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port }, () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/** The daemon's own listeners: who is there. */
async function listenerFinding(host: HostView, text: string): Promise<Finding> {
  const part = 'sockets';
  const found = { part, name: text };
  let address: ReturnType<typeof parseHost>;
  try {
    address = parseHost(text);
  } catch (error) {
    return { ...found, status: 'fail', text: errorMessage(error), fix: 'Correct --host.' };
  }
  if (address.kind === 'tcp')
    return (await listens(address.host, address.port))
      ? {
          ...found,
          status: 'warn',
          text: 'somebody listens there already',
          fix: 'Nothing, when it is the daemon. Else choose another port.',
        }
      : { ...found, status: 'ok', text: 'free' };
  if (address.kind === 'fd') return { ...found, status: 'ok', text: 'the service manager opens it' };
  if (!host.exists(address.path)) return { ...found, status: 'ok', text: 'free; no daemon is running' };
  const engine = await host.engine(address.path);
  if (!engine)
    return {
      ...found,
      status: 'warn',
      text: 'is there, but nobody answers',
      fix: 'Start the daemon: it replaces a socket that was left over. Without root it may only be out of your reach.',
    };
  return { ...found, status: 'ok', text: `${engine.name} ${engine.version} answers` };
}

/** Listeners, the client's address, and other engines. */
export async function socketFindings(host: HostView, config: DaemonConfig): Promise<Finding[]> {
  const part = 'sockets';
  const findings = await Promise.all(config.hosts.map((text) => listenerFinding(host, text)));
  const asked = host.env.DOCKER_HOST;
  if (asked)
    findings.push(
      config.hosts.includes(asked)
        ? { part, name: 'DOCKER_HOST', status: 'ok', text: asked }
        : {
            part,
            name: 'DOCKER_HOST',
            status: 'warn',
            text: `${asked} is not where this daemon listens`,
            fix: `Run: export DOCKER_HOST=${config.hosts[0]}, or unset it and use: docker context use drydock`,
          },
    );
  for (const path of new Set(wellKnownSockets(host))) {
    if (config.hosts.includes(`unix://${path}`) || !host.exists(path)) continue;
    const engine = await host.engine(path);
    findings.push(
      engine
        ? { part, name: path, status: 'ok', text: `${engine.name} ${engine.version} is beside it` }
        : {
            part,
            name: path,
            status: 'warn',
            text: 'another engine left its socket there, and nobody answers',
            fix: 'Start that engine, or remove the file: clients without a context use it.',
          },
    );
  }
  return findings;
}
