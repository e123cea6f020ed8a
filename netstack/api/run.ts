/**
 * Runs the network of a configuration: makes it, lets machines and namespaces in, publishes, serves the control API, and takes
 * everything down again.
 */
import { createWriteStream } from 'node:fs';
import { rename, rm, writeFile } from 'node:fs/promises';
import { type Logger, pino } from 'pino';
import { readText } from '../cli-vpnkit.ts';
import type { NetConfig } from '../config.ts';
import { parseHostsFile, parseVpnkitDns, parseVpnkitHttp } from '../config-vpnkit.ts';
import { followFile } from '../host/resolv-conf.ts';
import { type CaptureOptions, createNetstack, type Network } from '../index.ts';
import { formatAddress } from '../wire/address.ts';
import { CaptureControl } from './capture-control.ts';
import { type ControlServer, createControlServer } from './control.ts';
import { listenAt } from './endpoint.ts';
import { type ExposeProtocol, Forwarder } from './forwarder.ts';
import { serveGuests } from './guest-control.ts';
import { keepLeaseFile } from './lease-file.ts';
import { Notifier } from './notifier.ts';
import { forwardOverSsh } from './ssh-forward.ts';
import { ProxyControl } from './vpnkit-http.ts';
import { serveVpnkit } from './vpnkit-sockets.ts';
import { zoneOfConfig } from './zones.ts';

/** What runs. */
interface Running {
  network: Network;
  servers: ControlServer[];
  forwarder: Forwarder;
  captures: CaptureControl;
  proxies: ProxyControl;
  notifier: Notifier | undefined;
  /** What is to be ended besides: SSH's forwards, and the file of leases for a last time. */
  closers: (() => Promise<void>)[];
}

/** Runs until SIGINT or SIGTERM, or until the machine on standard input has gone. */
export async function runNetwork(config: NetConfig): Promise<void> {
  const log = openLog(config);
  const ended = new Promise<string>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve(signal));
  });
  const notifier = config.notification === undefined ? undefined : new Notifier(config.notification, log);
  const network = await createNetstack({
    name: 'net',
    subnet: config.subnet,
    gateway: config.gatewayIp,
    ...(config.subnet6 !== undefined && { subnet6: config.subnet6 }),
    gatewayMac: config.gatewayMac,
    mtuBytes: config.mtuBytes,
    searchDomains: config.searchDomains,
    hostAddresses: config.hostAddresses,
    machineMacs: config.machineMacs,
    ...(config.gatewayIp6 !== undefined && { gateway6: config.gatewayIp6 }),
    ...config.dhcpExtras,
    ...(config.dhcpFirst !== undefined && { dhcpFirst: config.dhcpFirst }),
    ...(config.dhcpLast !== undefined && { dhcpLast: config.dhcpLast }),
    gatewayForwards: config.gatewayForwards,
    socketForwards: config.socketForwards,
    ...(config.upstreams && { dnsUpstreams: config.upstreams }),
    ...(config.domain !== undefined && { domain: config.domain }),
    ...(config.faults && { faults: config.faults }),
    multicast: config.multicast,
    onStation: ({ mac, present }) =>
      notifier?.send({
        notification_type: present ? 'connection_established' : 'connection_closed',
        mac_address: mac,
      }),
    log,
  });
  const running: Running = {
    network,
    notifier,
    servers: [],
    closers: [],
    captures: new CaptureControl(network),
    proxies: new ProxyControl(network),
    forwarder: new Forwarder(
      network,
      (address, port) => network.dial(address, port),
      config.allowedBindAddresses,
      (socket, target) => forwardOverSsh(network, socket, target, log),
    ),
  };
  try {
    await configure(running, config);
    for (const end of await followFiles(running, config, log)) running.closers.push(async () => end());
    if (config.leaseFile !== undefined)
      running.closers.push(await keepLeaseFile(network, config.leaseFile, log));
    if (config.capture) running.closers.push(await startCapture(running.captures, config.capture, log));
    // Where only namespaces are attached, the gateway's port 80 is the host's as any other.
    if (config.links.length > 0 || config.listen.length > 0 || config.stdio)
      running.closers.push(await serveGuests(network, running.forwarder, log));
    await letIn(network, config, log);
    const gone = config.stdio ? plugStdio(network) : undefined;
    await serve(running, config, log);
    await serveVpnkit(running, config, log, running.closers);
    for (const { socket, ...target } of config.sshForwards)
      running.closers.push(
        await forwardOverSsh(network, socket, { address: config.machineIp, port: 22, ...target }, log),
      );
    if (config.pidFile !== undefined) await writePidFile(config.pidFile);
    notifier?.send({ notification_type: 'ready' });
    log.info({ subnet: network.subnet, gateway: network.gateway }, 'the network is ready');
    log.info({ reason: await (gone ? Promise.race([ended, gone]) : ended) }, 'ending');
  } finally {
    await stop(running, config);
  }
}

/** A machine on standard output must hear frames only: the log goes to standard error. */
function openLog({ logLevel, logFile }: NetConfig): Logger {
  if (logFile === undefined) return pino({ level: logLevel }, process.stderr);
  const file = createWriteStream(logFile, { flags: 'a' });
  file.on('error', (error) => process.stderr.write(`drydock net: log file: ${error.message}\n`));
  return pino({ level: logLevel }, file);
}

async function configure({ network, forwarder, proxies }: Running, config: NetConfig): Promise<void> {
  await network.setPolicy(config.policy);
  await proxies.set(config.httpProxy);
  for (const zone of config.zones) await network.addZone(zoneOfConfig(zone));
  for (const [address, mac] of Object.entries(config.staticLeases)) await network.reserve(address, mac);
  for (const [key, remote] of Object.entries(config.forwards)) {
    const [, protocol = 'tcp', local] = /^(?:(tcp|udp|unix):)?(.*)$/.exec(key) ?? [];
    await forwarder.expose({ protocol: protocol as ExposeProtocol, local: local!, remote });
  }
}

/** Takes VPNKit's files, now and as they change. A file that becomes wrong changes nothing, and the log says so. */
async function followFiles(
  { network, proxies }: Running,
  config: NetConfig,
  log: Logger,
): Promise<(() => void)[]> {
  const { names, hostsFile, dnsFile, httpProxyFile } = config;
  const ends: (() => void)[] = [];
  const follow = async (path: string, take: (text: string) => Promise<void>): Promise<void> => {
    await take(await readText(path));
    ends.push(
      followFile(path, (text) => {
        take(text).catch((error: unknown) => log.warn({ path, err: error }, 'a changed file is not taken'));
      }),
    );
  };
  const setNames = (text: string): Promise<void> =>
    network.setHostNames({
      ...Object.fromEntries(
        parseHostsFile(text).map(([name, addresses]) => [
          name,
          addresses.map((bytes) => formatAddress(bytes, 0)),
        ]),
      ),
      ...names,
    });
  if (hostsFile !== undefined) await follow(hostsFile, setNames);
  else await setNames('');
  if (dnsFile !== undefined)
    await follow(dnsFile, async (text) => network.resolveBy(parseVpnkitDns(text).upstreams));
  if (httpProxyFile !== undefined)
    await follow(httpProxyFile, async (text) => proxies.set(parseVpnkitHttp(text)));
  return ends;
}

/** Captures until the network ends, and then tells how it went. */
async function startCapture(
  captures: CaptureControl,
  options: CaptureOptions,
  log: Logger,
): Promise<() => Promise<void>> {
  const capture = await captures.stand(options);
  return async () => {
    const { frames, dropped, failed } = await capture.close();
    // A failure was logged when it happened.
    if (failed === undefined) log.info({ path: options.path, frames, dropped }, 'the capture is written');
  };
}

/** Lets guests in: attaches namespaces, and listens for machines. */
async function letIn(network: Network, config: NetConfig, log: Logger): Promise<void> {
  for (const namespace of config.namespaces) {
    const guest = await network.attach({
      ...namespace,
      interfaceName: config.interfaceName,
      names: [],
    });
    log.info({ ...namespace, address: guest.address, mac: guest.mac }, 'attached');
  }
  for (const { protocol, url } of config.links) {
    const { url: listening } = await network.listenLink(protocol, url);
    log.info({ protocol, url: listening }, 'machines may plug in');
  }
}

/** Plugs in the machine on standard input and output; resolves when it has gone. */
async function plugStdio(network: Network): Promise<string> {
  const { gone } = await network.plugDescriptors('hyperkit', 0, 1);
  await gone;
  return 'the machine on standard input has gone';
}

async function serve(
  { network, servers, forwarder, captures, proxies, notifier }: Running,
  config: NetConfig,
  log: Logger,
): Promise<void> {
  const open = async (endpoint: string, machines: boolean): Promise<void> => {
    const control = createControlServer({
      network,
      forwarder,
      captures,
      proxies,
      dial: (address, port) => network.dial(address, port),
      gatewayMac: network.gatewayMac,
      log,
      ...(machines && {
        connect: (stream) => {
          network.plugStream('connect', stream).catch((error: unknown) => {
            log.warn({ err: error }, 'a machine could not be plugged in');
            notifier?.send({ notification_type: 'hypervisor_error' });
            stream.destroy();
          });
        },
      }),
    });
    await listenAt(control.server, endpoint);
    servers.push(control);
    log.info({ endpoint }, 'control API');
  };
  for (const endpoint of config.listen) await open(endpoint, true);
  if (config.services !== undefined) await open(config.services, false);
}

/** Whoever waits for the file reads the number in it, the number alone, as soon as it is there. */
async function writePidFile(path: string): Promise<void> {
  await writeFile(`${path}.new`, String(process.pid));
  await rename(`${path}.new`, path);
}

async function stop(
  { network, servers, forwarder, notifier, closers }: Running,
  config: NetConfig,
): Promise<void> {
  await Promise.all(servers.map((server) => server.close()));
  await Promise.all(closers.map((close) => close()));
  await forwarder.close();
  await network.close();
  await notifier?.close();
  if (config.pidFile !== undefined) await rm(config.pidFile, { force: true });
}
