/** fd:// and readiness, as systemd has them; and metrics as Prometheus reads them. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { compiledEntry } from '#common/entry';
import { bindUnix, close, openUnixSocket, read } from '#common/native/socket';
import { choosePassed } from '../../daemon/activation.ts';
import { documentedMetrics } from '../support/documented-metrics.ts';
import { type DaemonAddress, Docker, IMAGE, TestDaemon, until } from '../support/e2e/daemon.ts';
import { describeE2e } from '../support/e2e/session.ts';
import { lacking } from '../support/requirements.ts';

let address: DaemonAddress;
beforeEach(() => {
  address = TestDaemon.makeAddress();
});
afterEach(() => TestDaemon.forget(address));

/** Metrics have dockerd's names, and count one container more. */
async function expectMetrics(docker: Docker, url: string): Promise<void> {
  const health = ['--health-cmd', 'false', '--health-interval', '100ms'];
  await docker.ok(['run', '-d', ...health, IMAGE, 'sleep', '1000']);
  const scrape = async (): Promise<string> => (await fetch(url)).text();
  await until(
    async () => /^engine_daemon_health_checks_failed_total [1-9]/m.test(await scrape()),
    'a check failed',
  );
  const response = await fetch(url);
  expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
  const text = await response.text();
  for (const line of [
    'engine_daemon_container_states_containers{state="running"} 1',
    'engine_daemon_container_actions_seconds_count{action="create"} 2',
    'engine_daemon_container_actions_seconds_bucket{action="start",le="+Inf"} 2',
    'engine_daemon_container_actions_seconds_count{action="commit"} 0',
    'builder_builds_triggered_total 0',
    '# TYPE engine_daemon_network_actions_seconds histogram',
  ])
    expect(text.split('\n')).toContain(line);
  const exposed = [...text.matchAll(/^# TYPE (\S+) (\w+)$/gm)].map(([, ...row]) => row);
  expect(documentedMetrics('The daemon')).toEqual(exposed.sort());
  expect(text).toMatch(/^engine_daemon_engine_info\{architecture="\w+",.*os_type="linux".*\} 1$/m);
  expect(Number(/^engine_daemon_events_total (\d+)$/m.exec(text)![1])).toBeGreaterThan(2);
  expect((await fetch(url.replace('metrics', ''))).status).toBe(404);
  await docker.removeAll();
}

describe.skipIf(lacking('root', '/dev/fuse', '/dev/net/tun', 'systemd-socket-activate'))(
  'a service manager',
  () => {
    it('passes sockets that fd:// names, hears READY and STOPPING, and its sockets reach no container; metrics count what is done', async () => {
      const folder = mkdtempSync(join(tmpdir(), 'drydock-notify-'));
      const notify = openUnixSocket('datagram');
      bindUnix(notify, join(folder, 'notify'));
      const told: string[] = [];
      const listen = (): boolean => {
        const buffer = Buffer.alloc(256);
        const length = read(notify, buffer, 0, buffer.length);
        if (length > 0) told.push(buffer.toString('utf8', 0, length));
        return told.length > 0;
      };
      const child = spawn(
        'systemd-socket-activate',
        [
          ...['-l', address.socketPath, '--fdname', 'api', '-E', `NOTIFY_SOCKET=${join(folder, 'notify')}`],
          ...[process.execPath, compiledEntry('daemon/bin'), 'daemon', '--host', 'fd://api'],
          ...['--data-root', address.dataRoot, '--exec-root', join(address.dataRoot, '..', 'exec')],
          ...['--metrics-addr', '127.0.0.1:0'],
        ],
        { stdio: ['ignore', 'pipe', 'pipe'] },
      );
      let log = '';
      for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (log += chunk));
      const ended = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)));
      try {
        const docker = new Docker(address);
        await until(() => log.includes('Listening on'), 'the manager listens');
        // The first client starts the daemon, and waits for it.
        expect((await docker.api('GET', '/_ping')).body).toBe('OK');
        await until(listen, 'it is ready');
        expect(told).toEqual(['READY=1']);
        expect(log).toContain(`DOCKER_HOST=unix://${address.socketPath}`);
        const seen = await docker.ok(['run', '--rm', IMAGE, 'sh', '-c', 'ls /proc/self/fd; env']);
        await expectMetrics(docker, /http:\/\/127\.0\.0\.1:\d+\/metrics/.exec(log)![0]);
        expect(seen.split('\n').filter((line) => /^(LISTEN_|NOTIFY_)/.test(line))).toEqual([]);
        told.length = 0;
        child.kill('SIGTERM');
        await until(listen, 'it stops');
        expect(told).toEqual(['STOPPING=1']);
        expect(await ended).toBe(0);
      } finally {
        child.kill('SIGTERM');
        await ended;
        close(notify);
        rmSync(folder, { recursive: true, force: true });
      }
    });
  },
);

describeE2e('without a service manager', () => {
  it('fd:// is refused with the reason', async () => {
    const daemon = TestDaemon.spawnProcess(address, ['--host', 'fd://']);
    expect(await daemon.exited).not.toBe(0);
    expect(daemon.log).toContain('no sockets found via socket activation');
  });
});

describe('fd://', () => {
  const sockets = [
    { fd: 3, name: 'api' },
    { fd: 4, name: 'tls' },
  ];

  it.each([
    ['', [3, 4]],
    ['*', [3, 4]],
    ['4', [4]],
    ['api', [3]],
  ])('%j means the sockets %j', (which, fds) => {
    expect(choosePassed(sockets, which).map(({ fd }) => fd)).toEqual(fds);
  });

  it.each(['5', 'other'])('%j means none and is refused', (which) => {
    expect(() => choosePassed(sockets, which)).toThrow(/no sockets found/);
  });
});
