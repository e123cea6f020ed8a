/** What service managers are given: systemd's units (systemd.service(5), systemd.socket(5)) and launchd's property list (launchd.plist(5)). Pure. */

/** What the files depend on. */
export interface ServiceSettings {
  /** Absolute paths of Node and of the program's entry. */
  node: string;
  program: string;
  /** Runs for one user instead of for the machine. */
  user: boolean;
  /** Where the daemon listens, and keeps its state. */
  socketPath: string;
  dataRoot: string;
  execRoot: string;
  /** Group that may use the socket; undefined: root's, or the user's own. */
  group: string | undefined;
  /** A second place where clients look for an engine, as /var/run/docker.sock; undefined for none. */
  wellKnown: string | undefined;
  /** Where launchd writes what the daemon prints. */
  logPath: string;
}

/** Time for the daemon to unpack its first image, and to stop all containers. */
const START_S_MAX = 300;
const STOP_S_MAX = 90;

/** One word of an ExecStart= line: quoted, and with nothing that systemd would replace. */
function word(text: string): string {
  const escaped = text.replaceAll('%', '%%').replaceAll('$', '$$$$');
  return /[\s"'\\;]/.test(escaped) ? `"${escaped.replace(/["\\]/g, '\\$&')}"` : escaped;
}

/** The daemon's arguments. @param hosts where it listens */
function daemonArguments(settings: ServiceSettings, hosts: readonly string[]): string[] {
  const { node, program, dataRoot, execRoot, user } = settings;
  const folders = user ? ['--data-root', dataRoot, '--exec-root', execRoot] : [];
  return [node, program, 'daemon', ...hosts.flatMap((host) => ['--host', host]), ...folders];
}

/**
 * drydock.service. It is started by its socket or at boot, says when it is ready, and keeps its containers' cgroups to itself. A user's
 * daemon is a child of the process that systemd knows (rootless.ts), and says so too.
 */
export function serviceUnit(settings: ServiceSettings): string {
  return `# Made by: drydock service install
[Unit]
Description=Drydock, a Docker Engine without a virtual machine
Documentation=man:drydock-daemon(1)
Requires=drydock.socket
After=drydock.socket${settings.user ? '' : ' network-online.target\nWants=network-online.target'}
StartLimitIntervalSec=60
StartLimitBurst=3

[Service]
Type=notify
NotifyAccess=${settings.user ? 'all' : 'main'}
ExecStart=${daemonArguments(settings, ['fd://']).map(word).join(' ')}
ExecReload=kill -HUP $MAINPID
Restart=on-failure
RestartSec=2
TimeoutStartSec=${START_S_MAX}
TimeoutStopSec=${STOP_S_MAX}
# The daemon ends its containers itself. With live-restore they go on without it, and with them what keeps their output.
KillMode=process
Delegate=yes
LimitNOFILE=1048576
TasksMax=infinity
${settings.user ? '' : 'OOMScoreAdjust=-500\n'}
[Install]
WantedBy=${settings.user ? 'default.target' : 'multi-user.target'}
Also=drydock.socket
`;
}

/** drydock.socket: clients may connect before the daemon runs, and start it. The link goes when the socket does. */
export function socketUnit({ socketPath, group, wellKnown, user }: ServiceSettings): string {
  const owner = user ? '' : `SocketUser=root\nSocketGroup=${group ?? 'root'}\n`;
  return `# Made by: drydock service install
[Unit]
Description=Drydock's API

[Socket]
ListenStream=${socketPath}
SocketMode=0660
${owner}${wellKnown === undefined ? '' : `Symlinks=${wellKnown}\n`}RemoveOnStop=yes

[Install]
WantedBy=sockets.target
`;
}

const xml = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

/** Name of launchd's job. */
export const LAUNCHD_LABEL = 'org.drydock.daemon';

/** launchd's property list. The daemon listens itself: it has no launch_activate_socket(3). */
export function launchdPlist(settings: ServiceSettings): string {
  const { socketPath, wellKnown, group, logPath } = settings;
  const hosts = [socketPath, ...(wellKnown === undefined ? [] : [wellKnown])].map((path) => `unix://${path}`);
  const words = [...daemonArguments(settings, hosts), ...(group === undefined ? [] : ['--group', group])];
  return `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<!-- Made by: drydock service install -->
<plist version="1.0">
<dict>
	<key>Label</key>
	<string>${LAUNCHD_LABEL}</string>
	<key>ProgramArguments</key>
	<array>
${words.map((text) => `\t\t<string>${xml(text)}</string>`).join('\n')}
	</array>
	<key>EnvironmentVariables</key>
	<dict>
		<key>PATH</key>
		<string>/opt/homebrew/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin</string>
	</dict>
	<key>RunAtLoad</key>
	<true/>
	<key>KeepAlive</key>
	<dict>
		<key>SuccessfulExit</key>
		<false/>
	</dict>
	<key>ExitTimeOut</key>
	<integer>${STOP_S_MAX}</integer>
	<key>SoftResourceLimits</key>
	<dict>
		<key>NumberOfFiles</key>
		<integer>65536</integer>
	</dict>
	<key>StandardOutPath</key>
	<string>${xml(logPath)}</string>
	<key>StandardErrorPath</key>
	<string>${xml(logPath)}</string>
</dict>
</plist>
`;
}
