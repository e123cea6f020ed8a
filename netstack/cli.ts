/**
 * `drydock net`: a network by itself, without the daemon. Its flags are gvproxy's, also with one dash, so that it takes
 * gvproxy's place in scripts; what gvproxy has not is named in the same way.
 *
 * A flag wins over the configuration file. The command runs until SIGINT or SIGTERM and leaves nothing behind.
 */
import type { Command } from 'commander';
import { explain } from '#common/command-help';
import { DrydockError } from '#common/errors';
import { addServiceCommands } from './cli-services.ts';
import {
  addVpnkitOptions,
  isPcapSocket,
  mergeVpnkitFlags,
  readText,
  type VpnkitFlags,
} from './cli-vpnkit.ts';
import { type NetConfig, resolveNetConfig, withMachineDefaults } from './config.ts';
import { type NetFile, parseNetFile, parsePolicyFile, type StackFile } from './config-file.ts';
import type { FaultsFile } from './config-wire.ts';
import { readResolvConf } from './host/resolv-conf.ts';
import { parseSearchDomains } from './service/dns/upstreams.ts';
import { parseDescriptor } from './units.ts';

/** Flags as commander gives them. */
interface NetFlags extends VpnkitFlags {
  config?: string;
  listen?: string[];
  services?: string;
  debug?: boolean;
  mtu?: string;
  subnet?: string;
  subnet6?: string;
  gatewayIP?: string;
  hostIP?: string;
  deviceIP?: string;
  notification?: string;
  pidFile?: string;
  logFile?: string;
  ec2MetadataAccess?: boolean;
  netns?: string[];
  interface?: string;
  domain?: string;
  forward?: string[];
  listenVpnkit?: string;
  listenQemu?: string;
  listenBess?: string;
  listenVfkit?: string;
  listenStdio?: string;
  sshPort?: string;
  leaseFile?: string;
  forwardSock?: string[];
  forwardDest?: string[];
  forwardUser?: string[];
  forwardIdentity?: string[];
  gatewayIp?: string;
  hostIp?: string;
  serverMacaddr?: string;
  pcapFilter?: string;
  pcapSize?: string;
  pcapFiles?: string;
  policy?: string;
  multicast?: string[];
  drop?: string;
  delay?: string;
  jitter?: string;
  reorder?: string;
  duplicate?: string;
  corrupt?: string;
  faultSeed?: string;
}

const collect = (value: string, before: string[] = []): string[] => [...before, value];
const collectList = (value: string, before: string[] = []): string[] => [...before, ...value.split(',')];

/** `-listen x` is `--listen x`: gvproxy's flags are Go's, which take one dash or two. */
function withTwoDashes(args: readonly string[]): string[] {
  return args.map((arg) => (/^-[A-Za-z][\w-]+(=|$)/.test(arg) ? `-${arg}` : arg));
}

/** Gives `net` its options. */
export function defineNet(command: Command, version: string): void {
  command
    .version(`drydock net version ${version}`, '--version', 'print the version')
    .option('--config <file>', "gvproxy's configuration file, YAML or JSON; flags override it")
    .option('--listen <url>', 'control endpoint, unix:///path or tcp://address:port (repeatable)', collect)
    .option('--services <url>', 'control endpoint without /connect')
    .option('--subnet <cidr>', 'IPv4 subnet (default: 192.168.127.0/24)')
    .option('--subnet6 <cidr>', 'IPv6 subnet, like fd00:1::/64 (default: none)')
    .option('--gatewayIP <address>', "the gateway's address (default: the first of the subnet)")
    .option(
      '--hostIP <address>',
      "address that leads to the host's loopback (default: the last of the subnet)",
    )
    .option('--deviceIP <address>', "the first machine's address (default: the second of the subnet)")
    .option('--mtu <bytes>', 'largest IP packet (default: 1500)')
    .option('--listen-vpnkit <url>', 'where machines with the handshake of VPNKit plug in, unix:///path')
    .option('--ethernet <path>', "the same by VPNKit's flag, a path or fd:N")
    .option('--listen-qemu <url>', "where QEMU's -netdev stream plugs in, unix:///path or tcp://address:port")
    .option('--listen-bess <url>', 'where packets of a SOCK_SEQPACKET socket come in, unixpacket:///path')
    .option('--listen-vfkit <url>', 'where vfkit plugs in, unixgram:///path')
    .option('--listen-stdio <any>', 'a machine speaks on standard input and output')
    .option(
      '--forward-sock <path>',
      'unix socket that leads to one in the first machine over SSH (repeatable)',
      collect,
    )
    .option('--forward-dest <path>', 'the socket in the machine, one for each', collect)
    .option('--forward-user <name>', 'the user there', collect)
    .option('--forward-identity <file>', "the user's key", collect)
    .option('--ssh-port <port>', "host port of the first machine's ssh, -1 for none (default: 2222)")
    .option('--gateway-ip <address>', "the same as --gatewayIP, by VPNKit's flag")
    .option('--host-ip <address>', "the same as --hostIP, by VPNKit's flag")
    .option('--server-macaddr <mac>', "the gateway's MAC address, by VPNKit's flag")
    .option(
      '--netns <pid|name|path>',
      'attach a network namespace, by name as of ip netns (repeatable)',
      collect,
    )
    .option('--interface <name>', 'name of the interface in attached namespaces (default: tap0)')
    .option(
      '--dns <address>',
      "resolver to forward to, also /domain/address (repeatable), or VPNKit's file of resolvers, followed; default: the host's resolv.conf",
      collect,
    )
    .option('--domain <name>', 'domain in which guests are known')
    .option(
      '--forward <local=remote>',
      'publish a port, like 127.0.0.1:8080=192.168.127.2:80 (repeatable)',
      collect,
    )
    .option('--ec2-metadata-access', "let guests reach the cloud's metadata addresses")
    .option('--notification <url>', 'unix socket that is told what happens, unix:///path')
    .option('--pid-file <file>', 'write the process id there once the network is ready')
    .option('--lease-file <file>', "keep DHCP's leases there between runs")
    .option('--log-file <file>', 'log there instead of to standard error')
    .option('--debug', 'log more');
  addWireOptions(command);
  addVpnkitOptions(command);
  addServiceCommands(command);
  explain(command, {
    examples: [
      {
        text: "a network for QEMU's -netdev stream, its API on a socket",
        command: 'drydock net --listen unix:///tmp/net.sock --listen-qemu unix:///tmp/qemu.sock',
      },
      {
        text: 'give a network namespace an interface and a published port',
        command: 'sudo drydock net --netns lab --forward 127.0.0.1:8080=192.168.127.2:80',
      },
      {
        text: 'what a bad mobile link does to a program, with all frames on record',
        command: 'sudo drydock net --netns lab --delay 150ms --jitter 50ms --drop 2% --pcap lab.pcap',
      },
    ],
  });
  command.action(async (flags: NetFlags) => {
    try {
      const config = await configure(flags);
      const { runNetwork } = await import('./api/run.ts');
      await runNetwork(config);
    } catch (error) {
      if (!(error instanceof DrydockError)) throw error;
      process.stderr.write(`drydock net: ${error.message} (${error.code})\n`);
      process.exitCode = 1;
    }
  });
  const parseOptions = command.parseOptions.bind(command);
  command.parseOptions = (args) => parseOptions(withTwoDashes(args));
}

/** What may leave, what is looked at, and what goes wrong. */
function addWireOptions(command: Command): void {
  command
    .option('--policy <file>', 'what may leave the network: a file with what stack.policy holds')
    .option('--multicast <groups>', "relay to the host's network: mdns, ssdp, all, address:port", collectList)
    .option(
      '--pcap <file>',
      'write frames to a file or pipe for Wireshark; with --ethernet, as unix:///path or fd:N: a socket that gives them to whoever connects (repeatable)',
      collect,
    )
    .option('--pcap-filter <expression>', "only these, as tcpdump's: 'tcp port 443 and host 192.168.127.2'")
    .option('--pcap-size <bytes>', 'begin another file at this size, like 10M; the last is FILE.1, and so on')
    .option('--pcap-files <number>', 'how many of those to keep (default: 5)')
    .option('--drop <chance>', "bad wires: lose guests' frames, both ways, by a chance like 5% or 0.05")
    .option('--delay <time>', 'bad wires: every frame comes later, like 20ms')
    .option('--jitter <time>', 'bad wires: and by chance up to this much more')
    .option('--reorder <chance>', 'bad wires: later frames overtake one')
    .option('--duplicate <chance>', 'bad wires: a frame comes twice')
    .option('--corrupt <chance>', 'bad wires: one bit of a frame is flipped')
    .option('--fault-seed <number>', 'bad wires: the same traffic meets the same faults');
}

/** The configuration that a file and flags make. */
async function configure(flags: NetFlags): Promise<NetConfig> {
  let file: NetFile = {};
  if (flags.config !== undefined) {
    file = parseNetFile(await readText(flags.config));
  }
  const merged = await mergeVpnkitFlags(mergeFlags(file, flags), flags);
  if (flags.policy !== undefined)
    merged.stack = { ...merged.stack, policy: parsePolicyFile(await readText(flags.policy)) };
  const sshPort = flags.sshPort === undefined ? undefined : Number(flags.sshPort);
  if (flags.config === undefined)
    return resolveNetConfig(withHostSearch(withMachineDefaults(merged, sshPort)));
  // As gvproxy: podman's library gives the flag always.
  if (sshPort !== undefined)
    process.stderr.write(
      'drydock net: --ssh-port has no effect beside --config. Put "127.0.0.1:PORT: GUEST:22" into stack.forwards of the file.\n',
    );
  return resolveNetConfig(merged);
}

/** Without a file, guests search the domains that the host searches, as gvproxy's do. */
function withHostSearch(file: NetFile): NetFile {
  if (file.stack?.dnsSearchDomains) return file;
  return { ...file, stack: { ...file.stack, dnsSearchDomains: parseSearchDomains(readResolvConf()) } };
}

/** Flags over a file. Pure. */
export function mergeFlags(file: NetFile, flags: NetFlags): NetFile {
  const stack: StackFile = { ...file.stack };
  if (flags.mtu !== undefined) stack.mtu = Number(flags.mtu);
  if (flags.subnet !== undefined) stack.subnet = flags.subnet;
  if (flags.subnet6 !== undefined) stack.subnet6 = flags.subnet6;
  if (flags.gatewayIP !== undefined) stack.gatewayIP = flags.gatewayIP;
  if (flags.hostIP !== undefined) stack.hostIP = flags.hostIP;
  if (flags.deviceIP !== undefined) stack.deviceIP = flags.deviceIP;
  if (flags.gatewayIp !== undefined) stack.gatewayIP = flags.gatewayIp;
  if (flags.hostIp !== undefined) stack.hostIP = flags.hostIp;
  if (flags.serverMacaddr !== undefined) stack.gatewayMacAddress = flags.serverMacaddr;
  if (flags.dns) stack.dnsUpstreams = flags.dns;
  const forwards = sshForwards(flags);
  Object.assign(stack, wireFlags(file, flags));
  const interfaces = { ...file.interfaces };
  if (flags.ethernet !== undefined)
    interfaces.vpnkit =
      parseDescriptor(flags.ethernet) === undefined ? `unix://${flags.ethernet}` : flags.ethernet;
  if (flags.listenVpnkit !== undefined) interfaces.vpnkit = flags.listenVpnkit;
  if (flags.listenQemu !== undefined) interfaces.qemu = flags.listenQemu;
  if (flags.listenBess !== undefined) interfaces.bess = flags.listenBess;
  if (flags.listenVfkit !== undefined) interfaces.vfkit = flags.listenVfkit;
  if (flags.listenStdio !== undefined) interfaces.stdio = flags.listenStdio;
  if (flags.domain !== undefined) stack.domain = flags.domain;
  if (flags.forward)
    stack.forwards = { ...stack.forwards, ...Object.fromEntries(flags.forward.map(splitForward)) };
  return {
    ...file,
    stack,
    ...(forwards.length > 0 && { forwards: [...(file.forwards ?? []), ...forwards] }),
    ...(Object.keys(interfaces).length > 0 && { interfaces }),
    ...(flags.listen && { listen: flags.listen }),
    ...(flags.services !== undefined && { services: flags.services }),
    ...(flags.debug && { 'log-level': 'debug' }),
    ...(flags.notification !== undefined && { notification: flags.notification }),
    ...(flags.pidFile !== undefined && { 'pid-file': flags.pidFile }),
    ...(flags.leaseFile !== undefined && { 'lease-file': flags.leaseFile }),
    ...(flags.logFile !== undefined && { 'log-file': flags.logFile }),
    ...(flags.ec2MetadataAccess && { 'ec2-metadata-access': true }),
    ...(flags.netns && { namespaces: flags.netns }),
    ...(flags.interface !== undefined && { interface: flags.interface }),
  };
}

/** What a number's flag holds; NaN is told by whoever knows the range. */
function wholeNumber(text: string): number {
  return /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
}

/** The keys of `stack` for the flags of {@link addWireOptions}. */
function wireFlags(file: NetFile, flags: NetFlags): StackFile {
  const pcap = flags.pcap?.findLast((target) => !isPcapSocket(target, flags));
  const { pcapFilter, pcapSize, pcapFiles, multicast, faultSeed } = flags;
  const faults: FaultsFile = { ...file.stack?.faults };
  for (const key of ['drop', 'delay', 'jitter', 'reorder', 'duplicate', 'corrupt'] as const)
    if (flags[key] !== undefined) faults[key] = flags[key];
  if (faultSeed !== undefined) faults.seed = wholeNumber(faultSeed);
  return {
    ...(pcap !== undefined && { 'capture-file': pcap }),
    ...(pcapFilter !== undefined && { 'capture-filter': pcapFilter }),
    ...(pcapSize !== undefined && { 'capture-size': pcapSize }),
    ...(pcapFiles !== undefined && { 'capture-files': wholeNumber(pcapFiles) }),
    ...(multicast && { multicast }),
    ...(Object.keys(faults).length > 0 && { faults }),
  };
}

function sshForwards(flags: NetFlags): NonNullable<NetFile['forwards']> {
  const { forwardSock = [], forwardDest = [], forwardUser = [], forwardIdentity = [] } = flags;
  if ([forwardDest, forwardUser, forwardIdentity].some((list) => list.length !== forwardSock.length))
    throw new DrydockError(
      'ERR_NET_CONFIG_INVALID',
      '--forward-sock, --forward-dest, --forward-user and --forward-identity go together: give each as often as the others.',
    );
  return forwardSock.map((socket, i) => ({
    socket,
    dest: forwardDest[i]!,
    user: forwardUser[i]!,
    identity: forwardIdentity[i]!,
  }));
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
