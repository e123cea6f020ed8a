import { afterAll, beforeAll, expect, it } from 'vitest';
import type { JailReportRow } from '../../daemon/runtime/runtime.ts';
import { ociCommand } from '../interop/jails.ts';
import { IMAGE, TestDaemon } from '../support/e2e/daemon.ts';
import { describeE2e } from '../support/e2e/session.ts';

describeE2e('OCI runtimes by configuration', () => {
  const crun = ociCommand('crun');
  const address = TestDaemon.makeAddress();
  let daemon: TestDaemon;
  beforeAll(async () => {
    const runtimes = ['real-runc=runc', `crun=${crun.command}`, 'missing=/no/such/runtime'];
    daemon = await TestDaemon.launch(
      address,
      runtimes.flatMap((runtime) => ['--add-runtime', runtime]),
    );
  });
  afterAll(async () => {
    await daemon.stop('SIGTERM');
    TestDaemon.forget(address);
    crun.remove();
  });

  it('are listed with ours as the default', async () => {
    const info = await daemon.ok([
      'info',
      '--format',
      '{{.DefaultRuntime}} {{range $name, $_ := .Runtimes}}{{$name}} {{end}}',
    ]);
    expect(info).toBe('drydock crun drydock missing plain real-runc');
  });

  it('each tell in info what a container gets, how, and what gets round it', async () => {
    const { body } = await daemon.api('GET', '/info');
    const { JailReports: reports, Warnings: warnings } = JSON.parse(body) as {
      JailReports: Record<string, JailReportRow[]>;
      Warnings: string[];
    };
    expect(Object.keys(reports).toSorted()).toEqual(['crun', 'drydock', 'missing', 'plain', 'real-runc']);
    const row = (runtime: string, feature: string) =>
      reports[runtime]?.find((row) => row.feature === feature);
    expect(row('drydock', 'system calls')).toMatchObject({ asked: 'default profile', got: 'full' });
    expect(row('drydock', 'user namespace')?.bypass).toMatch(/fault of the kernel/);
    expect(row('crun', 'devices')?.how).toMatch(/\(by crun\)$/);
    expect(row('plain', 'network')).toMatchObject({
      got: 'partial',
      bypass: expect.stringMatching(/whoever reaches the host/),
    });
    for (const rows of Object.values(reports))
      for (const { feature, asked, got, how } of rows) {
        expect([feature, asked, how]).not.toContain('');
        expect(['full', 'partial', 'none']).toContain(got);
      }
    const lacking = reports.drydock!.filter(({ asked, got }) => asked !== 'none' && got !== 'full');
    expect(warnings.filter((text) => lacking.some(({ feature }) => text.includes(feature)))).toHaveLength(
      lacking.length,
    );
  });

  it.each(['real-runc', 'crun'])(
    '%s runs containers with network, names, output, exec and exit code',
    async (runtime) => {
      const name = `by-${runtime}`;
      await daemon.ok(['run', '-d', '--name', name, '--runtime', runtime, IMAGE, 'sleep', '1000']);
      expect(await daemon.ok(['inspect', '-f', '{{.HostConfig.Runtime}}', name])).toBe(runtime);
      const { stdout, code } = await daemon.run([
        'exec',
        '-u',
        '1000',
        name,
        'sh',
        '-c',
        'id -u; ls /sys/class/net; exit 3',
      ]);
      expect([stdout, code]).toEqual(['1000\neth0\nlo\n', 3]);
      await daemon.ok(['pause', name]);
      await daemon.ok(['unpause', name]);
      await daemon.ok(['kill', name]);
      expect(await daemon.ok(['wait', name])).toBe('137');
      await daemon.ok(['rm', name]);
      const missing = await daemon.run(['run', '--rm', '--runtime', runtime, IMAGE, 'nowhere']);
      expect(missing.code).toBe(127);
      expect(missing.stderr).toMatch(/executable file .*not found/);
    },
  );

  it('plain runs a container as a user of its own, and refuses what it has no means for', async () => {
    const id = await daemon.ok(['run', '--rm', '--runtime', 'plain', '--network', 'none', IMAGE, 'id', '-u']);
    expect(Number(id)).toBeGreaterThan(0x6fff_ffff);
    const body = {
      Image: IMAGE,
      HostConfig: { Runtime: 'plain', NetworkMode: 'none', CapAdd: ['SYS_ADMIN'] },
    };
    const { status, body: answer } = await daemon.api('POST', '/containers/create', body);
    expect([status, JSON.parse(answer).message]).toEqual([400, expect.stringContaining('CAP_SYS_ADMIN')]);
  });

  it('plain reaches its networks by a proxy, and nothing else', async () => {
    const serve = (name: string) => [
      ...['node', '-e'],
      `require("http").createServer((q,r)=>r.end("${name}")).listen(+process.argv[1])`,
    ];
    const start = (name: string, port: number, ...options: string[]) =>
      daemon.ok(['run', '-d', '--name', name, ...options, IMAGE, ...serve(name), String(port)]);
    const plain = ['--runtime', 'plain', '--network'];
    await daemon.ok(['network', 'create', 'meeting']);
    await daemon.ok(['network', 'create', '--internal', 'inside']);
    const sh = (name: string, command: string) => daemon.run(['exec', name, 'sh', '-c', command]);
    const get = async (name: string, ...args: string[]) => {
      const retry = ['--retry', '50', '--retry-all-errors', '--retry-delay', '0'];
      return daemon.ok(['exec', name, 'curl', '-sS', '--max-time', '5', ...retry, ...args]);
    };
    try {
      await start('jail', 18_480, ...plain, 'meeting', '-p', '127.0.0.1:0:18480');
      await start('guest', 80, '--network', 'meeting');
      await start('shut-in', 18_482, ...plain, 'inside', '--expose', '18482');
      const published = `http://${await daemon.ok(['port', 'jail', '18480'])}`;
      expect(await get('guest', 'http://jail:18480')).toBe('jail');
      expect(await (await fetch(published)).text()).toBe('jail');
      // By HTTP, by a tunnel, by SOCKS, and itself without any.
      expect(await get('jail', 'http://guest')).toBe('guest');
      expect(await get('jail', 'http://jail:18480', '--proxytunnel')).toBe('jail');
      expect((await sh('jail', 'curl -sS --proxy "$ALL_PROXY" http://guest')).stdout).toBe('guest');
      expect(await get('jail', 'http://127.0.0.1:18480')).toBe('jail');

      const refusals: [name: string, command: string, said: RegExp][] = [
        ['a port that is not its own', 'curl -sS -v --noproxy "*" http://127.0.0.1:1', /Permission denied/],
        ['another network, by the proxy', 'curl -sS http://jail:18480', /is outside/],
        ['the host by another name', 'curl -sS --noproxy x http://127.0.0.2:1', /is outside/],
        [
          'a proxy without its password',
          'unset http_proxy; curl -sS -i -x "http://$(echo $HTTP_PROXY | cut -d@ -f2)" http://jail',
          /^HTTP\/1.1 407/,
        ],
        ['a published port', `curl -sS -v --noproxy "*" ${published}`, /Permission denied/],
        [
          'other protocols',
          `node -e 'require("dgram").createSocket("udp4").on("error",(e)=>console.log(e.code)).bind(0)'`,
          /EPERM/,
        ],
        [
          'listening elsewhere',
          `node -e 'require("net").createServer().on("error",(e)=>console.log(e.code)).listen(18481)'`,
          /EACCES/,
        ],
      ];
      for (const [what, command, said] of refusals) {
        const { stdout, stderr } = await sh('shut-in', command);
        expect(stdout + stderr, what).toMatch(said);
      }
    } finally {
      await daemon.run(['rm', '-f', 'jail', 'guest', 'shut-in']);
      await daemon.run(['network', 'rm', 'meeting', 'inside']);
    }
  });

  it('that are unknown or missing are said to be so, and ours goes on', async () => {
    const unknown = await daemon.run(['run', '--rm', '--runtime', 'kata', IMAGE, 'true']);
    expect([unknown.code, unknown.stderr]).toEqual([
      125,
      expect.stringContaining('unknown or invalid runtime name: kata'),
    ]);
    const missing = await daemon.run(['run', '--rm', '--runtime', 'missing', IMAGE, 'true']);
    expect([missing.code, missing.stderr]).toEqual([
      125,
      expect.stringContaining('/no/such/runtime cannot be run'),
    ]);
    expect(await daemon.ok(['run', '--rm', IMAGE, 'echo', 'fine'])).toBe('fine');
  });
});
