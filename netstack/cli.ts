/**
 * `drydock net`: a network by itself, without the daemon. Its flags are gvproxy's, also with one dash, so that it takes
 * gvproxy's place in scripts; what gvproxy has not is named in the same way.
 *
 * A flag wins over the configuration file. The command runs until SIGINT or SIGTERM and leaves nothing behind.
 */
import { createWriteStream } from 'node:fs';
import { readFile, rm, writeFile } from 'node:fs/promises';
import type { Server } from 'node:http';
import type { Command } from 'commander';
import { type Logger, pino } from 'pino';
import { DrydockError, errorMessage } from '#common/errors';
import { createControlServer } from './api/control.ts';
import { listenAt } from './api/endpoint.ts';
import { type ExposeProtocol, Forwarder } from './api/forwarder.ts';
import { zoneOfConfig } from './api/zones.ts';
import { type NetConfig, type NetFile, parseNetFile, resolveNetConfig, type StackFile } from './config.ts';
import { createNetwork, type Network } from './index.ts';

/** Flags as commander gives them. */
interface NetFlags {
  config?: string;
  listen?: string[];
  services?: string;
  debug?: boolean;
  mtu?: string;
  subnet?: string;
  gatewayIP?: string;
  hostIP?: string;
  pidFile?: string;
  logFile?: string;
  ec2MetadataAccess?: boolean;
  netns?: string[];
  interface?: string;
  dns?: string[];
  domain?: string;
  forward?: string[];
}

const collect = (value: string, before: string[] = []): string[] => [...before, value];

/** `-listen x` is `--listen x`: gvproxy's flags are Go's, which take one dash or two. */
function withTwoDashes(args: readonly string[]): string[] {
  return args.map((arg) => (/^-[A-Za-z][\w-]+(=|$)/.test(arg) ? `-${arg}` : arg));
}

/** Adds `net` to a program. */
export function addNetCommand(program: Command): void {
  // Else flags behind `net` that look like the program's own would be taken for them.
  program.enablePositionalOptions();
  const command = program
    .command('net')
    .description("run a network in userspace by itself, with gvproxy's flags and control API")
    .option('--config <file>', "gvproxy's configuration file, YAML or JSON; flags override it")
    .option('--listen <url>', 'control endpoint, unix:///path or tcp://address:port (repeatable)', collect)
    .option('--services <url>', 'control endpoint without /connect')
    .option('--subnet <cidr>', 'IPv4 subnet (default: 192.168.127.0/24)')
    .option('--gatewayIP <address>', "the gateway's address (default: the first of the subnet)")
    .option(
      '--hostIP <address>',
      "address that leads to the host's loopback (default: the last of the subnet)",
    )
    .option('--mtu <bytes>', 'largest IP packet (default: 1500)')
    .option('--netns <pid|path>', 'attach a network namespace (repeatable)', collect)
    .option('--interface <name>', 'name of the interface in attached namespaces (default: tap0)')
    .option(
      '--dns <address>',
      "resolver to forward to (repeatable; default: the host's resolv.conf)",
      collect,
    )
    .option('--domain <name>', 'domain in which guests are known')
    .option(
      '--forward <local=remote>',
      'publish a port, like 127.0.0.1:8080=192.168.127.2:80 (repeatable)',
      collect,
    )
    .option('--ec2-metadata-access', "let guests reach the cloud's metadata addresses")
    .option('--pid-file <file>', 'write the process id there once the network is ready')
    .option('--log-file <file>', 'log there instead of to standard error')
    .option('--debug', 'log more')
    .action(async (flags: NetFlags) => {
      try {
        await run(await configure(flags));
      } catch (error) {
        if (!(error instanceof DrydockError)) throw error;
        process.stderr.write(`drydock net: ${error.message}\n`);
        process.exitCode = 1;
      }
    });
  const parseOptions = command.parseOptions.bind(command);
  command.parseOptions = (args) => parseOptions(withTwoDashes(args));
}

/** The configuration that a file and flags make. */
async function configure(flags: NetFlags): Promise<NetConfig> {
  let file: NetFile = {};
  if (flags.config !== undefined) {
    const content = await readFile(flags.config, 'utf8').catch((error: unknown) => {
      throw new DrydockError('ERR_NET_CONFIG_INVALID', `Cannot read ${flags.config}: ${errorMessage(error)}`);
    });
    file = parseNetFile(content);
  }
  return resolveNetConfig(mergeFlags(file, flags));
}

/** Flags over a file. Pure. */
export function mergeFlags(file: NetFile, flags: NetFlags): NetFile {
  const stack: StackFile = { ...file.stack };
  if (flags.mtu !== undefined) stack.mtu = Number(flags.mtu);
  if (flags.subnet !== undefined) stack.subnet = flags.subnet;
  if (flags.gatewayIP !== undefined) stack.gatewayIP = flags.gatewayIP;
  if (flags.hostIP !== undefined) stack.hostIP = flags.hostIP;
  if (flags.dns) stack.dnsUpstreams = flags.dns;
  if (flags.domain !== undefined) stack.domain = flags.domain;
  if (flags.forward)
    stack.forwards = { ...stack.forwards, ...Object.fromEntries(flags.forward.map(splitForward)) };
  return {
    ...file,
    stack,
    ...(flags.listen && { listen: flags.listen }),
    ...(flags.services !== undefined && { services: flags.services }),
    ...(flags.debug && { 'log-level': 'debug' }),
    ...(flags.pidFile !== undefined && { 'pid-file': flags.pidFile }),
    ...(flags.logFile !== undefined && { 'log-file': flags.logFile }),
    ...(flags.ec2MetadataAccess && { 'ec2-metadata-access': true }),
    ...(flags.netns && { namespaces: flags.netns }),
    ...(flags.interface !== undefined && { interface: flags.interface }),
  };
}

function splitForward(text: string): [string, string] {
  const [local, remote, ...rest] = text.split('=');
  if (!local || !remote || rest.length > 0)
    throw new DrydockError(
      'ERR_NET_CONFIG_INVALID',
      `"${text}" is no forward. Give one like 127.0.0.1:8080=192.168.127.2:80, or udp:… for UDP.`,
    );
  return [local, remote];
}

/** What runs, and how it ends. */
interface Running {
  network: Network;
  servers: Server[];
  forwarder: Forwarder;
}

async function run(config: NetConfig): Promise<void> {
  const log: Logger = pino(
    { level: config.logLevel },
    config.logFile === undefined ? process.stderr : createWriteStream(config.logFile, { flags: 'a' }),
  );
  const ended = new Promise<string>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve(signal));
  });
  const network = await createNetwork({
    name: 'net',
    subnet: config.subnet,
    gateway: config.gatewayIp,
    mtuBytes: config.mtuBytes,
    searchDomains: config.searchDomains,
    hostAddresses: [config.hostIp],
    ...(config.gatewayMac !== undefined && { gatewayMac: config.gatewayMac }),
    ...(config.upstreams && { dnsUpstreams: config.upstreams }),
    ...(config.domain !== undefined && { domain: config.domain }),
    log,
  });
  const running: Running = {
    network,
    servers: [],
    forwarder: new Forwarder(network, (address, port) => network.dial(address, port)),
  };
  try {
    await start(running, config, log);
    if (config.pidFile !== undefined) await writeFile(config.pidFile, `${process.pid}\n`);
    log.info({ subnet: network.subnet, gateway: network.gateway }, 'the network is ready');
    log.info({ signal: await ended }, 'ending');
  } finally {
    await stop(running, config);
  }
}

async function start(
  { network, servers, forwarder }: Running,
  config: NetConfig,
  log: Logger,
): Promise<void> {
  await network.setPolicy(config.policy);
  for (const zone of config.zones) await network.addZone(zoneOfConfig(zone));
  for (const [address, mac] of Object.entries(config.staticLeases)) await network.reserve(address, mac);
  for (const namespace of config.namespaces) {
    const isPid = /^\d+$/.test(namespace);
    const guest = await network.attach({
      ...(isPid ? { pid: Number(namespace) } : { namespacePath: namespace }),
      interfaceName: config.interfaceName,
      names: [],
    });
    log.info({ namespace, address: guest.address, mac: guest.mac }, 'attached');
  }
  for (const [key, remote] of Object.entries(config.forwards)) {
    const [, protocol = 'tcp', local] = /^(?:(tcp|udp|unix):)?(.*)$/.exec(key) ?? [];
    await forwarder.expose({ protocol: protocol as ExposeProtocol, local: local!, remote });
  }
  const endpoints = config.services === undefined ? config.listen : [...config.listen, config.services];
  for (const endpoint of endpoints) {
    const server = createControlServer({
      network,
      forwarder,
      dial: (address, port) => network.dial(address, port),
      gatewayMac: network.gatewayMac,
      log,
    });
    await listenAt(server, endpoint);
    servers.push(server);
    log.info({ endpoint }, 'control API');
  }
}

async function stop({ network, servers, forwarder }: Running, config: NetConfig): Promise<void> {
  await Promise.all(
    servers.map(
      (server) =>
        new Promise((resolve) => {
          server.close(resolve);
          server.closeAllConnections();
        }),
    ),
  );
  await forwarder.close();
  await network.close();
  if (config.pidFile !== undefined) await rm(config.pidFile, { force: true });
}
