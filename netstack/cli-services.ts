/**
 * `drydock net dns`, `dhcp`, `dhcp6`, `ntp` and `proxy`: the services of a network by themselves, over ordinary sockets of this
 * host. Each runs until SIGINT or SIGTERM.
 */
import { networkInterfaces } from 'node:os';
import { type Command, Option } from 'commander';
import { type Logger, pino } from 'pino';
import { systemClock } from '#common/clock';
import { explain } from '#common/command-help';
import { DrydockError } from '#common/errors';
import type { LeaseRecord, RunningService } from './api/standalone.ts';
import { readText } from './cli-vpnkit.ts';
import { resolvePolicy } from './config.ts';
import { parsePolicyFile } from './config-file.ts';
import { parseHostsFile } from './config-vpnkit.ts';
import { requireDhcpExtras, requireIpv4, requireMac } from './plan.ts';
import type { DhcpServerExtras } from './service/dhcp-server.ts';
import { parseDurationMs } from './units.ts';
import { formatIpv4, netmask, parseAddress, parseIpv4 } from './wire/address.ts';

const collect = (value: string, before: string[] = []): string[] => [...before, value];

function invalid(message: string): DrydockError {
  return new DrydockError('ERR_NET_CONFIG_INVALID', message);
}

/** What a service's command starts; `close` ends it. */
type Start<F> = (flags: F, log: Logger) => Promise<{ close(): Promise<void>; told: object }>;

/** Gives a command its example and its action: start, say so, wait for a signal, end. */
function runs<F extends { debug?: boolean }>(
  command: Command,
  example: { text: string; command: string },
  start: Start<F>,
): void {
  explain(command, { examples: [example] });
  command.option('--debug', 'log more').action(async (flags: F) => {
    try {
      const ended = new Promise<string>((resolve) => {
        for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve(signal));
      });
      const log = pino({ level: flags.debug ? 'debug' : 'info' }, process.stderr);
      const { close, told } = await start(flags, log);
      log.info(told, `${command.name()} is ready`);
      log.info({ reason: await ended }, 'ending');
      await close();
    } catch (error) {
      if (!(error instanceof DrydockError)) throw error;
      process.stderr.write(`drydock net ${command.name()}: ${error.message} (${error.code})\n`);
      process.exitCode = 1;
    }
  });
}

/** Adds the services to `drydock net`. */
export function addServiceCommands(net: Command): void {
  addDns(net);
  addDhcp(net);
  addDhcp6(net);
  addNtp(net);
  addProxy(net);
}

/** `address:port`, `[address]:port`, or an address alone. */
function endpoint(text: string, portDefault: number): { address: string; port: number } {
  if (parseAddress(text)) return { address: text, port: portDefault };
  const match = /^(?:\[(?<v6>[^\]]+)\]|(?<v4>[^:]*)):(?<port>\d{1,5})$/.exec(text);
  const address = match?.groups?.v6 ?? (match?.groups?.v4 || '0.0.0.0');
  const port = Number(match?.groups?.port);
  if (!match || !parseAddress(address) || port > 65535)
    throw invalid(
      `"${text}" is no place to listen. Give one like 127.0.0.1:${portDefault} or [::1]:${portDefault}.`,
    );
  return { address, port };
}

function durationMs(text: string, flag: string): number {
  const value = parseDurationMs(text);
  if (value === undefined || value < 1000)
    throw invalid(`${flag} is "${text}", no duration like 3600s, of 1s or more.`);
  return value;
}

interface DnsFlags {
  listen: string;
  dns?: string[];
  name?: string[];
  hosts?: string;
  domain?: string;
  debug?: boolean;
}

function addDns(net: Command): void {
  const command = net
    .command('dns')
    .description('a DNS forwarder over UDP and TCP, with a cache and names of its own')
    .option('--listen <address:port>', 'where to listen', '127.0.0.1:53')
    .option(
      '--dns <address>',
      "resolver to forward to, also address#port and /domain/address (repeatable; default: the host's resolv.conf, followed)",
      collect,
    )
    .option('--name <name=address>', 'a name that is answered here (repeatable)', collect)
    .option('--hosts <file>', 'names that are answered here, a file like /etc/hosts, followed')
    .option('--domain <name>', 'domain below which the names are known too, and nothing is forwarded');
  runs<DnsFlags>(
    command,
    {
      text: 'a forwarder with a name of its own, for dig @127.0.0.1 -p 5353 web',
      command: 'drydock net dns --listen 127.0.0.1:5353 --dns 10.0.0.1 --name web=10.0.0.2',
    },
    async (flags) => {
      const { NameTable, parseUpstream, serveDns } = await import('./api/standalone.ts');
      const { followFile, followResolvConf, RESOLV_CONF } = await import('./host/resolv-conf.ts');
      const { address, port } = endpoint(flags.listen, 53);
      const upstreams = flags.dns?.map((text) => {
        const upstream = parseUpstream(text);
        if (!upstream) throw invalid(`"${text}" is no DNS server. Give one like 10.0.0.1 or 10.0.0.1#5353.`);
        return upstream;
      });
      const names = new NameTable({
        isLocal: () => false,
        ...(flags.domain !== undefined && { domain: flags.domain }),
      });
      (flags.name ?? []).forEach((text, index) => {
        const [name, value, ...rest] = text.split('=');
        const bytes = parseAddress(value ?? '');
        if (!name || !bytes || rest.length > 0)
          throw invalid(`"${text}" is no name. Give one like web=10.0.0.2.`);
        names.setGuest(`name ${index}`, [name], [bytes]);
      });
      const { hosts } = flags;
      const first = hosts === undefined ? '' : await readText(hosts);
      const setHosts = (text: string): void => names.setHostNames(parseHostsFile(text));
      setHosts(first);
      const service = await serveDns({ address, port, names, upstreams: upstreams ?? [] });
      const ends = [
        ...(hosts === undefined ? [] : [followFile(hosts, setHosts)]),
        ...(upstreams
          ? []
          : [followResolvConf(RESOLV_CONF, (found) => service.resolver.setUpstreams(found))]),
      ];
      return {
        told: { address, port: service.port },
        close: async () => {
          for (const end of ends) end();
          await service.close();
        },
      };
    },
  );
}

/** Keeps the leases of a server in a file, if one is named; returns what ends both. */
async function withLeaseFile(
  service: RunningService,
  leases: { keepLeases(): LeaseRecord[]; restoreLeases(records: LeaseRecord[]): number },
  path: string | undefined,
  log: Logger,
): Promise<() => Promise<void>> {
  if (path === undefined) return () => service.close();
  const { keepLeaseFile } = await import('./api/lease-file.ts');
  const end = await keepLeaseFile(
    {
      keepLeases: async () => leases.keepLeases(),
      restoreLeases: async (records) => leases.restoreLeases(records),
    },
    path,
    log,
  );
  return async () => {
    await end();
    await service.close();
  };
}

interface DhcpFlags {
  listen: string;
  interface?: string;
  subnet: string;
  serverIP?: string;
  first?: string;
  last?: string;
  router?: string[];
  dns?: string[];
  ntp?: string[];
  domain?: string;
  search?: string[];
  mtu?: string;
  lease: string;
  static?: string[];
  route?: string[];
  ipv6OnlyWait?: string;
  proxyConfig?: string;
  leaseFile?: string;
  debug?: boolean;
}

function addDhcp(net: Command): void {
  const command = net
    .command('dhcp')
    .description('a DHCP server for the clients of an interface, and of relays')
    .requiredOption('--subnet <cidr>', 'subnet of which addresses are given, like 10.0.0.0/24')
    .option('--interface <name>', 'serve the clients of this interface alone')
    .option('--listen <address:port>', 'where to listen', '0.0.0.0:67')
    .option(
      '--serverIP <address>',
      "the server's own address (default: the one that the interface has in the subnet)",
    )
    .option('--first <address>', 'first address to give (default: the first of the subnet)')
    .option('--last <address>', 'last address to give')
    .option('--router <address>', 'default router (repeatable)', collect)
    .option('--dns <address>', 'DNS server (repeatable)', collect)
    .option('--ntp <address>', 'time server (repeatable)', collect)
    .option('--domain <name>', 'domain of the clients')
    .option('--search <domain>', 'domain to search (repeatable)', collect)
    .option('--mtu <bytes>', "the link's MTU")
    .option('--route <cidr=address>', 'a router for a subnet (option 121, repeatable)', collect)
    .option('--ipv6-only-wait <time>', 'clients that can shall do without IPv4 for so long (option 108)')
    .option('--proxy-config <url>', "where browsers find their proxy's settings (option 252)")
    .option('--lease <time>', 'length of a lease', '3600s')
    .option('--static <mac=address>', 'an address for one client (repeatable)', collect)
    .option('--lease-file <file>', 'keep the leases there between runs');
  runs<DhcpFlags>(
    command,
    {
      text: 'addresses for the machines behind an interface',
      command: 'sudo drydock net dhcp --interface eth1 --subnet 10.0.0.0/24 --router 10.0.0.1',
    },
    async (flags, log) => {
      const { LeasePool, serveDhcp } = await import('./api/standalone.ts');
      const { address, port } = endpoint(flags.listen, 67);
      const [networkText = '', lengthText = ''] = flags.subnet.split('/');
      const base = parseIpv4(networkText);
      const prefixLength = /^\d{1,2}$/.test(lengthText) ? Number(lengthText) : 0;
      if (base === undefined || prefixLength < 1 || prefixLength > 30)
        throw invalid(`"${flags.subnet}" is no IPv4 subnet. Give one like 10.0.0.0/24, up to /30.`);
      const network = (base & netmask(prefixLength)) >>> 0;
      const isLocal = (ip: number): boolean => (ip & netmask(prefixLength)) >>> 0 === network;
      const serverAddress =
        flags.serverIP === undefined
          ? ownAddress(flags.interface, isLocal, flags.subnet)
          : requireIpv4(flags.serverIP, 'server');
      const all = (texts: string[] | undefined, what: string): number[] =>
        (texts ?? []).map((text) => requireIpv4(text, what));
      const routers = all(flags.router, 'router');
      const pool = new LeasePool({
        network,
        prefixLength,
        excluded: [serverAddress, ...routers],
        ...(flags.first !== undefined && { first: requireIpv4(flags.first, 'lease') }),
        ...(flags.last !== undefined && { last: requireIpv4(flags.last, 'lease') }),
      });
      for (const text of flags.static ?? []) {
        const [mac = '', ip = ''] = text.split('=');
        pool.reserve(requireIpv4(ip, 'lease'), { mac: requireMac(mac) });
      }
      const mtuBytes = flags.mtu === undefined ? undefined : Number(flags.mtu);
      if (mtuBytes !== undefined && !(Number.isInteger(mtuBytes) && mtuBytes >= 68 && mtuBytes <= 65535))
        throw invalid(`--mtu is "${flags.mtu}", not from 68 to 65535.`);
      const service = await serveDhcp({
        address,
        port,
        pool,
        serverAddress,
        prefixLength,
        routers,
        dnsServers: all(flags.dns, 'DNS server'),
        ntpServers: all(flags.ntp, 'time server'),
        searchDomains: flags.search ?? [],
        leaseMs: durationMs(flags.lease, '--lease'),
        log,
        ...dhcpExtras(flags),
        ...(flags.interface !== undefined && { interface: flags.interface }),
        ...(flags.domain !== undefined && { domainName: flags.domain }),
        ...(mtuBytes !== undefined && { mtuBytes }),
      });
      const leases = {
        keepLeases: () => pool.snapshot(systemClock.now(), systemClock.wallMs()),
        restoreLeases: (records: LeaseRecord[]) =>
          pool.restore(records, systemClock.now(), systemClock.wallMs()),
      };
      const told = { address, port: service.port, server: formatIpv4(serverAddress) };
      return { told, close: await withLeaseFile(service, leases, flags.leaseFile, log) };
    },
  );
}

function dhcpExtras({ route, ipv6OnlyWait, proxyConfig }: DhcpFlags): DhcpServerExtras {
  const routes = route?.map((text): [string, string] => {
    const [cidr = '', router = ''] = text.split('=');
    return [cidr, router];
  });
  return requireDhcpExtras({
    ...(routes && { dhcpRoutes: Object.fromEntries(routes) }),
    ...(ipv6OnlyWait !== undefined && { ipv6OnlyWaitMs: durationMs(ipv6OnlyWait, '--ipv6-only-wait') }),
    ...(proxyConfig !== undefined && { proxyAutoConfigUrl: proxyConfig }),
  });
}

/** This host's address in a subnet, of one interface or of any. */
function ownAddress(name: string | undefined, isLocal: (ip: number) => boolean, subnet: string): number {
  const found = Object.entries(networkInterfaces())
    .filter(([key]) => name === undefined || key === name)
    .flatMap(([, entries]) => entries ?? [])
    .map((entry) => parseIpv4(entry.address))
    .find((ip) => ip !== undefined && isLocal(ip));
  if (found !== undefined) return found;
  throw invalid(
    `${name === undefined ? 'No interface that is up has an' : `The interface ${name} is down, or has no`} address in ${subnet}. Give it one, or say --serverIP.`,
  );
}

interface Dhcp6Flags {
  interface?: string;
  listen?: string;
  subnet6: string;
  first?: string;
  last?: string;
  stateless?: boolean;
  dns?: string[];
  ntp?: string[];
  search?: string[];
  lease: string;
  leaseFile?: string;
  port: string;
  debug?: boolean;
}

function addDhcp6(net: Command): void {
  const command = net
    .command('dhcp6')
    .description('a DHCPv6 server, stateful or stateless, for the clients of an interface and of relays')
    .requiredOption('--subnet6 <cidr>', 'network of which addresses are given, like fd00:1::/64')
    .option('--interface <name>', 'serve the clients on the link of this interface')
    .option('--listen <address>', 'serve the relays that speak to this address')
    .option('--first <address>', 'first address to give (default: …::1000)')
    .option('--last <address>', 'last address to give (default: …::ffff)')
    .option('--stateless', 'give parameters alone, no addresses')
    .option('--dns <address>', 'DNS server (repeatable)', collect)
    .option('--ntp <address>', 'time server (repeatable)', collect)
    .option('--search <domain>', 'domain to search (repeatable)', collect)
    .option('--lease <time>', 'length of a lease', '3600s')
    .option('--lease-file <file>', 'keep the leases there between runs')
    .addOption(new Option('--port <port>', 'UDP port').default('547').hideHelp());
  runs<Dhcp6Flags>(
    command,
    {
      text: 'IPv6 addresses for the machines behind an interface',
      command: 'sudo drydock net dhcp6 --interface eth1 --subnet6 fd00:1::/64',
    },
    async (flags, log) => {
      const { serveDhcp6 } = await import('./api/standalone.ts');
      if (flags.stateless && (flags.first ?? flags.last ?? flags.leaseFile) !== undefined)
        throw invalid(
          '--first, --last and --lease-file are about addresses; with --stateless there are none.',
        );
      const all = (texts: string[] | undefined, what: string): Uint8Array[] =>
        (texts ?? []).map((text) => {
          const bytes = text.includes(':') ? parseAddress(text) : undefined;
          if (!bytes) throw invalid(`"${text}" is no IPv6 address of a ${what}.`);
          return bytes;
        });
      const service = await serveDhcp6({
        port: Number(flags.port),
        prefix: flags.subnet6,
        dnsServers: all(flags.dns, 'DNS server'),
        ntpServers: all(flags.ntp, 'time server'),
        searchDomains: flags.search ?? [],
        leaseMs: durationMs(flags.lease, '--lease'),
        ...(flags.interface !== undefined && { interface: flags.interface }),
        ...(flags.listen !== undefined && { address: flags.listen }),
        ...(flags.first !== undefined && { first: flags.first }),
        ...(flags.last !== undefined && { last: flags.last }),
        ...(flags.stateless && { stateless: true }),
      });
      return {
        told: { interface: flags.interface, address: flags.listen, port: service.port },
        close: await withLeaseFile(service, service, flags.leaseFile, log),
      };
    },
  );
}

function addNtp(net: Command): void {
  const command = net
    .command('ntp')
    .description("an NTP server that tells this host's time")
    .option('--listen <address:port>', 'where to listen', '127.0.0.1:123');
  runs<{ listen: string; debug?: boolean }>(
    command,
    { text: 'the time of this host for a test network', command: 'drydock net ntp --listen 127.0.0.1:1123' },
    async (flags) => {
      const { hostClockQuality, serveNtp } = await import('./api/standalone.ts');
      const { address, port } = endpoint(flags.listen, 123);
      const service = await serveNtp({ address, port, quality: hostClockQuality });
      return { told: { address, port: service.port }, close: () => service.close() };
    },
  );
}

interface ProxyFlags {
  listen: string;
  upstreamHttp?: string;
  upstreamHttps?: string;
  exclude?: string;
  policy?: string;
  debug?: boolean;
}

function addProxy(net: Command): void {
  const command = net
    .command('proxy')
    .description('an HTTP proxy with CONNECT, an upstream proxy and an egress policy')
    .option('--listen <address:port>', 'where to listen', '127.0.0.1:3128')
    .option(
      '--upstream-http <proxy>',
      'proxy for plain requests, host:port or http://user:password@host:port',
    )
    .option('--upstream-https <proxy>', 'proxy for tunnels')
    .option(
      '--exclude <list>',
      'names, *.suffixes, addresses and networks that are reached directly, with commas between',
    )
    .option('--policy <file>', 'what may be reached: a file with what stack.policy of drydock net holds');
  runs<ProxyFlags>(
    command,
    {
      text: 'a proxy that goes on by another one',
      command: 'drydock net proxy --listen 127.0.0.1:3128 --upstream-https proxy.example:3128',
    },
    async (flags, log) => {
      const { HttpProxy, parseExcludes, parseUpstreamProxy } = await import('./api/http-proxy.ts');
      const { EgressRules } = await import('./service/policy.ts');
      const { address, port } = endpoint(flags.listen, 3128);
      const policy = new EgressRules(
        () => performance.now(),
        ({ at: _at, count: _count, ...flow }) => log.info(flow, 'the policy denied a flow'),
      );
      policy.set(
        resolvePolicy(flags.policy === undefined ? {} : parsePolicyFile(await readText(flags.policy))),
      );
      const proxy = new HttpProxy({
        excludes: parseExcludes(flags.exclude ?? ''),
        policy,
        hostNames: [],
        ...(flags.upstreamHttp !== undefined && { http: parseUpstreamProxy(flags.upstreamHttp) }),
        ...(flags.upstreamHttps !== undefined && { https: parseUpstreamProxy(flags.upstreamHttps) }),
      });
      return { told: { address, port: await proxy.listen({ address, port }) }, close: () => proxy.close() };
    },
  );
}
