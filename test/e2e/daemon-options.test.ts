/** Listeners with TLS, daemon.json, --validate and SIGHUP, with the real CLI and a daemon of its own. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, realpathSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type DaemonAddress, TestDaemon, until } from '../support/e2e/daemon.ts';
import { describeE2e } from '../support/e2e/session.ts';

describeE2e('the options of the daemon', () => {
  let address: DaemonAddress;
  let daemon: TestDaemon | undefined;

  beforeEach(() => {
    address = TestDaemon.makeAddress();
  });
  afterEach(async () => {
    await daemon?.stop();
    daemon = undefined;
    TestDaemon.forget(address);
  });

  const configFile = (config: object): string => {
    const path = join(address.dataRoot, '..', 'daemon.json');
    writeFileSync(path, JSON.stringify(config));
    return path;
  };

  /** A CA, and certificates of it for the daemon and a client. */
  const makeCertificates = (): string => {
    const folder = join(address.dataRoot, '..', 'tls');
    mkdirSync(folder);
    const openssl = (...args: string[]): void =>
      void execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
    openssl(
      'req',
      '-x509',
      ...key,
      '-keyout',
      'ca-key.pem',
      '-out',
      'ca.pem',
      '-days',
      '1',
      '-subj',
      '/CN=ca',
    );
    for (const [name, usage] of [
      ['server', 'serverAuth'],
      ['client', 'clientAuth'],
    ] as const) {
      writeFileSync(join(folder, 'ext'), `subjectAltName=IP:127.0.0.1\nextendedKeyUsage=${usage}\n`);
      openssl('req', ...key, '-keyout', `${name}-key.pem`, '-out', `${name}.csr`, '-subj', `/CN=${name}`);
      openssl(
        ...['x509', '-req', '-in', `${name}.csr`, '-CA', 'ca.pem', '-CAkey', 'ca-key.pem', '-CAcreateserial'],
        ...['-out', `${name}.pem`, '-days', '1', '-extfile', 'ext'],
      );
    }
    return folder;
  };

  it('mutual TLS over TCP: a client of the CA gets in, others do not', async () => {
    const folder = makeCertificates();
    const file = (name: string): string => join(folder, `${name}.pem`);
    const tls = [
      '--tlsverify',
      '--tlscacert',
      file('ca'),
      '--tlscert',
      file('server'),
      '--tlskey',
      file('server-key'),
    ];
    daemon = await TestDaemon.launch(address, ['--host', 'tcp://127.0.0.1:0', ...tls]);
    const port = /tcp:\/\/127\.0\.0\.1:(\d+)/.exec(daemon.log)?.[1];
    const host = ['--host', `tcp://127.0.0.1:${port}`];
    const mine = [
      '--tlsverify',
      '--tlscacert',
      file('ca'),
      '--tlscert',
      file('client'),
      '--tlskey',
      file('client-key'),
    ];
    expect(await daemon.ok([...mine, ...host, 'version', '--format', '{{.Server.Os}}'])).toBe('linux');
    // Upgraded connections take the same way.
    expect(await daemon.ok([...mine, ...host, 'run', '--rm', 'drydock/host', 'echo', 'by tls'])).toBe(
      'by tls',
    );
    const stranger = await daemon.run(['--tls', ...host, 'version'], { env: { DOCKER_HOST: '' } });
    expect(stranger.code).not.toBe(0);
    const plain = await daemon.run([...host, 'version']);
    expect(plain.code).not.toBe(0);
  });

  it('daemon.json is used, and a key that a flag has too is refused', async () => {
    const path = configFile({ labels: ['rack=4'], 'log-driver': 'local' });
    daemon = await TestDaemon.launch(address, ['--config-file', path]);
    expect(await daemon.ok(['info', '--format', '{{.Labels}} {{.LoggingDriver}}'])).toBe('[rack=4] local');
    const rival = TestDaemon.spawnProcess(address, ['--config-file', path, '--label', 'rack=5']);
    expect(await rival.exited).not.toBe(0);
    expect(rival.log).toMatch(/specified both as a flag and in the configuration file: labels/);
  });

  it('--validate checks and starts nothing', async () => {
    const good = TestDaemon.spawnProcess(address, [
      '--validate',
      '--config-file',
      configFile({ debug: true }),
    ]);
    expect([await good.exited, good.log]).toEqual([0, 'configuration OK\n']);
    const bad = TestDaemon.spawnProcess(address, [
      '--validate',
      '--config-file',
      configFile({ debugg: true }),
    ]);
    expect(await bad.exited).not.toBe(0);
    expect(bad.log).toMatch(/debugg/);
  });

  it('SIGHUP takes over labels and debug, and keeps what it had when the file is bad', async () => {
    const path = configFile({ labels: ['a=1'] });
    daemon = await TestDaemon.launch(address, ['--config-file', path]);
    const running = daemon;
    const info = (): Promise<string> => running.ok(['info', '--format', '{{.Labels}} {{.Debug}}']);
    configFile({ labels: ['a=2'], debug: true });
    running.process.kill('SIGHUP');
    await until(async () => (await info()) === '[a=2] true', 'the new labels are in force');
    writeFileSync(path, '{');
    running.process.kill('SIGHUP');
    await until(() => running.log.includes('not reloaded'), 'the bad file is told');
    expect(await info()).toBe('[a=2] true');
  });

  it('mounts only the host folders that are shared, and makes no others', async () => {
    const base = realpathSync(join(address.dataRoot, '..'));
    mkdirSync(join(base, 'shared', 'inside'), { recursive: true });
    const config = configFile({ 'file-sharing': [join(base, 'shared')] });
    daemon = await TestDaemon.launch(address, ['--config-file', config]);
    const list = (path: string): string[] => [
      'run',
      '--rm',
      '-v',
      `${path}:/data`,
      'drydock/host',
      'ls',
      '/data',
    ];
    expect(await daemon.ok(list(join(base, 'shared')))).toBe('inside');
    const other = join(base, 'other');
    const refused = await daemon.run(list(other));
    expect(refused.code).toBe(125);
    expect(refused.stderr).toContain(`Mounts denied: the path ${other} is not shared from the host`);
    expect(existsSync(other)).toBe(false);
  });
});
