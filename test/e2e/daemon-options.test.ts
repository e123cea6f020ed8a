/** Listeners with TLS, daemon.json, --validate and SIGHUP, with the real CLI and one daemon with all of it. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, realpathSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type DaemonAddress, IMAGE, TestDaemon, until } from '../support/e2e/daemon.ts';
import { describeE2e } from '../support/e2e/session.ts';

describeE2e('the options of the daemon', () => {
  let address: DaemonAddress;
  let daemon: TestDaemon;
  let base: string;
  let config: string;
  const file = (name: string): string => join(base, 'tls', `${name}.pem`);

  const OPTIONS = {
    labels: ['rack=4'],
    'log-driver': 'local',
    'log-opts': { 'max-size': '1m' },
    'default-ulimits': { nofile: { Name: 'nofile', Soft: 111, Hard: 222 } },
    'default-shm-size': '9M',
    init: true,
    'no-new-privileges': true,
    'exec-opts': ['native.cgroupdriver=cgroupfs'],
    bip: '10.231.4.1/24',
    'fixed-cidr': '10.231.4.64/26',
    ipv6: true,
    'fixed-cidr-v6': 'fd31:4::/64',
    ip: '127.0.0.1',
    icc: false,
    'default-address-pools': [{ base: '10.232.0.0/16', size: 26 }],
    'default-network-opts': { bridge: { 'com.docker.network.driver.mtu': '1400' } },
    'host-gateway-ips': ['10.9.8.7', 'fd09::7'],
    'max-concurrent-downloads': 2,
    'registry-mirrors': ['https://mirror.test'],
    'insecure-registries': ['10.0.0.0/8', 'plain.test:5000'],
    proxies: { 'https-proxy': 'http://user:secret@proxy.test:3128', 'no-proxy': 'near.test' },
    builder: { gc: { policy: [{ filter: ['type=regular'], all: true, keepStorage: '1' }] } },
    features: { buildkit: true },
    'min-api-version': '1.30',
    'live-restore': false,
  };

  const writeConfig = (more: object): void => writeFileSync(config, JSON.stringify({ ...OPTIONS, ...more }));

  /** A CA, and certificates of it for the daemon and a client. */
  const makeCertificates = (): void => {
    const folder = join(base, 'tls');
    mkdirSync(folder);
    const openssl = (...args: string[]): void =>
      void execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
    const ca = ['-keyout', 'ca-key.pem', '-out', 'ca.pem', '-days', '1', '-subj', '/CN=ca'];
    openssl('req', '-x509', ...key, ...ca);
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
  };

  beforeAll(async () => {
    address = TestDaemon.makeAddress();
    base = realpathSync(join(address.dataRoot, '..'));
    config = join(base, 'daemon.json');
    makeCertificates();
    mkdirSync(join(base, 'shared', 'inside'), { recursive: true });
    writeConfig({ 'file-sharing': [join(base, 'shared')] });
    daemon = await TestDaemon.launch(address, [
      ...['--config-file', config, '--host', 'tcp://127.0.0.1:0', '--tlsverify'],
      ...['--tlscacert', file('ca'), '--tlscert', file('server'), '--tlskey', file('server-key')],
    ]);
  });
  afterAll(async () => {
    await daemon?.stop();
    TestDaemon.forget(address);
  });

  const get = async <T = Record<string, unknown>>(path: string): Promise<T> =>
    JSON.parse((await daemon.api('GET', path)).body) as T;

  it('mutual TLS over TCP: a client of the CA gets in, others do not', async () => {
    const port = /tcp:\/\/127\.0\.0\.1:(\d+)/.exec(daemon.log)?.[1];
    const host = ['--host', `tcp://127.0.0.1:${port}`];
    const mine = [
      ...['--tlsverify', '--tlscacert', file('ca'), '--tlscert', file('client')],
      ...['--tlskey', file('client-key'), ...host],
    ];
    expect(await daemon.ok([...mine, 'version', '--format', '{{.Server.Os}}'])).toBe('linux');
    // Upgraded connections take the same way.
    expect(await daemon.ok([...mine, 'run', '--rm', IMAGE, 'echo', 'by tls'])).toBe('by tls');
    const stranger = await daemon.run(['--tls', ...host, 'version'], { env: { DOCKER_HOST: '' } });
    expect(stranger.code).not.toBe(0);
    const plain = await daemon.run([...host, 'version']);
    expect(plain.code).not.toBe(0);
  });

  it('docker info tells what is in force, and no password', async () => {
    expect(await get('/info')).toMatchObject({
      Labels: ['rack=4'],
      LoggingDriver: 'local',
      HttpsProxy: 'http://xxxxx:xxxxx@proxy.test:3128',
      NoProxy: 'near.test',
      DefaultAddressPools: [{ Base: '10.232.0.0/16', Size: 26 }],
      RegistryConfig: {
        InsecureRegistryCIDRs: ['::1/128', '127.0.0.0/8', '10.0.0.0/8'],
        IndexConfigs: {
          'docker.io': { Mirrors: ['https://mirror.test/'], Secure: true, Official: true },
          'plain.test:5000': { Secure: false, Official: false },
        },
        Mirrors: ['https://mirror.test/'],
      },
    });
  });

  it('versions below min-api-version are refused as too old', async () => {
    expect(await get('/version')).toMatchObject({ MinAPIVersion: '1.30', ApiVersion: '1.51' });
    const { status, body } = await daemon.api('GET', '/v1.29/version');
    expect([status, JSON.parse(body).message]).toEqual([
      400,
      'client version 1.29 is too old. Minimum supported API version is 1.30, please upgrade your client to a newer version',
    ]);
    expect((await daemon.api('GET', '/v1.30/version')).status).toBe(200);
  });

  it('the default network is where bip, fixed-cidr and fixed-cidr-v6 put it', async () => {
    expect(await get('/networks/bridge')).toMatchObject({
      EnableIPv6: true,
      IPAM: {
        Config: [
          { Subnet: '10.231.4.0/24', Gateway: '10.231.4.1', IPRange: '10.231.4.64/26' },
          { Subnet: 'fd31:4::/64', Gateway: 'fd31:4::1' },
        ],
      },
    });
    await daemon.ok(['network', 'create', 'pooled']);
    expect(await get('/networks/pooled')).toMatchObject({
      IPAM: { Config: [{ Subnet: '10.232.0.0/26' }] },
      Options: { 'com.docker.network.driver.mtu': '1400' },
    });
  });

  it('containers get the defaults; icc=false keeps them apart on the default network only', async () => {
    const serve = "require('http').createServer((q,r)=>r.end('served')).listen(80,()=>console.log('ready'))";
    await daemon.ok(['run', '-d', '--name', 'server', '-p', '80', IMAGE, 'node', '-e', serve]);
    await daemon.ok(['network', 'connect', 'pooled', 'server']);
    const { NetworkSettings, HostConfig } = await daemon.inspect<{
      NetworkSettings: {
        Ports: Record<string, { HostIp: string; HostPort: string }[]>;
        Networks: Record<string, { IPAddress: string; GlobalIPv6Address: string }>;
      };
      HostConfig: Record<string, unknown>;
    }>('server');
    expect(HostConfig).toMatchObject({
      Init: true,
      ShmSize: 9 << 20,
      SecurityOpt: ['no-new-privileges'],
      LogConfig: { Type: 'local', Config: { 'max-size': '1m' } },
    });
    const { bridge, pooled } = NetworkSettings.Networks;
    expect(bridge!.IPAddress).toMatch(/^10\.231\.4\.(6[4-9]|[7-9]\d|1[01]\d|12[0-7])$/);
    expect(bridge!.GlobalIPv6Address).toMatch(/^fd31:4::/);
    const [published, ...more] = NetworkSettings.Ports['80/tcp']!;
    expect([published!.HostIp, more]).toEqual(['127.0.0.1', []]);
    await until(async () => (await daemon.ok(['logs', 'server'])).includes('ready'), 'the server listens');
    expect(await (await fetch(`http://127.0.0.1:${published!.HostPort}/`)).text()).toBe('served');

    // One client of both networks: what is refused on one of them is served on the other.
    const look = `
      ulimit -Sn; ulimit -Hn; df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2
      grep NoNewPrivs /proc/self/status; grep sidecar /etc/hosts
      ask() { curl -sS --connect-timeout 0.5 "http://$1/" >/dev/null 2>&1 && echo "$2 reached" || echo "$2 not"; }
      ask ${bridge!.IPAddress} bridge; ask '[${bridge!.GlobalIPv6Address}]' bridge6; ask ${pooled!.IPAddress} pooled`;
    await daemon.ok([
      ...['create', '--name', 'client', '--add-host', 'sidecar:host-gateway', IMAGE, 'bash', '-c', look],
    ]);
    await daemon.ok(['network', 'connect', 'pooled', 'client']);
    const seen = (await daemon.ok(['start', '-a', 'client'])).split('\n').map((line) => line.trim());
    expect(seen).toEqual([
      ...['111', '222', String(9 << 10), 'NoNewPrivs:\t1', '10.9.8.7\tsidecar', 'fd09::7\tsidecar'],
      ...['bridge not', 'bridge6 not', 'pooled reached'],
    ]);
    await daemon.ok(['rm', '-f', 'server', 'client']);
  });

  it('mounts only the host folders that are shared, and makes no others', async () => {
    const list = (path: string): string[] => ['run', '--rm', '-v', `${path}:/data`, IMAGE, 'ls', '/data'];
    expect(await daemon.ok(list(join(base, 'shared')))).toBe('inside');
    const other = join(base, 'other');
    const refused = await daemon.run(list(other));
    expect(refused.code).toBe(125);
    expect(refused.stderr).toContain(`Mounts denied: the path ${other} is not shared from the host`);
    expect(existsSync(other)).toBe(false);
  });

  it('keeps the cache of builds as small as builder.gc says, but no image from who has built it', async () => {
    const stages = [`FROM ${IMAGE} AS made`, 'RUN echo kept > /kept; head -c 100000 /dev/zero > /zeros'];
    const dockerfile = [...stages, `FROM ${IMAGE}`, 'COPY --from=made /kept /kept', ''].join('\n');
    const id = await daemon.ok(['build', '-q', '-'], { input: dockerfile });
    await until(() => daemon.log.includes('collected garbage of the build cache'), 'it was collected');
    const { BuildCache } = await get('/system/df?type=build-cache');
    expect(BuildCache).toMatchObject([{ ID: id.replace('sha256:', '') }]);
    expect(await daemon.ok(['run', '--rm', id, 'cat', '/kept'])).toBe('kept');
  });

  it('SIGHUP takes over what may change, tells it in an event, and keeps what it had when the file is bad', async () => {
    expect((await daemon.api('HEAD', '/_ping')).headers['builder-version']).toBe('2');
    writeConfig({
      labels: ['rack=5'],
      debug: true,
      features: { buildkit: false },
      'registry-mirrors': [],
      'insecure-registries': [],
      'default-shm-size': '8M',
      runtimes: { other: { path: '/bin/true', runtimeArgs: ['--x'] } },
      // Not among those that may change.
      bip: '10.231.4.9/24',
    });
    const since = Math.floor(Date.now() / 1000);
    daemon.process.kill('SIGHUP');
    await until(() => daemon.log.includes('configuration reloaded'), 'the new file is in force');
    expect(await get('/info')).toMatchObject({
      Labels: ['rack=5'],
      Debug: true,
      Runtimes: { other: { path: '/bin/true', runtimeArgs: ['--x'] } },
      RegistryConfig: { Mirrors: [], InsecureRegistryCIDRs: ['::1/128', '127.0.0.0/8'] },
    });
    expect(await get('/networks/bridge')).toMatchObject({
      IPAM: { Config: [{ Gateway: '10.231.4.1' }, {}] },
    });
    expect((await daemon.api('HEAD', '/_ping')).headers['builder-version']).toBe('1');
    const created = await daemon.api('POST', '/containers/create', { Image: IMAGE, Cmd: ['true'] });
    const { Id } = JSON.parse(created.body) as { Id: string };
    expect(await get(`/containers/${Id}/json`)).toMatchObject({ HostConfig: { ShmSize: 8 << 20 } });
    const filters = encodeURIComponent('{"type":["daemon"]}');
    const { body } = await daemon.api('GET', `/events?since=${since}&until=0s&filters=${filters}`);
    expect(JSON.parse(body)).toMatchObject({
      Type: 'daemon',
      Action: 'reload',
      Actor: {
        Attributes: {
          labels: '["rack=5"]',
          debug: 'true',
          'default-shm-size': String(8 << 20),
          'insecure-registries': '[]',
          'live-restore': 'false',
          'max-concurrent-downloads': '2',
          'shutdown-timeout': '15',
        },
      },
    });
    for (const [text, reason] of [
      ['{', 'unable to configure the daemon'],
      [JSON.stringify({ ...OPTIONS, 'default-runtime': 'nowhere' }), "runtime 'nowhere' does not exist"],
    ]) {
      writeFileSync(config, text!);
      daemon.process.kill('SIGHUP');
      await until(
        () => daemon.log.split('configuration not reloaded: ').at(-1)!.includes(reason!),
        'the bad file is told',
      );
    }
    expect(await get('/info')).toMatchObject({ Labels: ['rack=5'], DefaultRuntime: 'drydock' });
  });

  it('a key that a flag has too is refused', async () => {
    writeConfig({});
    const rival = TestDaemon.spawnProcess(address, ['--config-file', config, '--label', 'rack=5']);
    expect(await rival.exited).not.toBe(0);
    expect(rival.log).toMatch(/specified both as a flag and in the configuration file: labels/);
  });

  it('folders that the system refuses are told with the reason and a remedy', async () => {
    const rival = TestDaemon.spawnProcess({ ...address, dataRoot: '/proc/nowhere/data' });
    expect(await rival.exited).toBe(1);
    expect(rival.log).toContain("drydock: the daemon's data (--data-root /proc/nowhere/data, ");
    expect(rival.log).toMatch(/: no folder can be made there\. Use another place\. \(ERR_START\)$/m);
  });

  it('--validate checks and starts nothing', async () => {
    writeConfig({});
    const good = TestDaemon.spawnProcess(address, ['--validate', '--config-file', config]);
    expect([await good.exited, good.log]).toEqual([0, 'configuration OK\n']);
    writeConfig({ debugg: true });
    const bad = TestDaemon.spawnProcess(address, ['--validate', '--config-file', config]);
    expect(await bad.exited).not.toBe(0);
    expect(bad.log).toMatch(/debugg/);
  });
});
