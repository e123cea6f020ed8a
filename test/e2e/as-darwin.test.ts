/**
 * The daemon on a Linux that it takes for a Mac: that everything it loads there can be loaded, that it starts and stops, and
 * what it says of itself and of containers. What Darwin's own calls do is not known from this: see docs/macos.md.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { TestDaemon } from '../support/e2e/daemon.ts';
import { describeE2e } from '../support/e2e/session.ts';
import { directory, file, tarOf } from '../support/images.ts';

const RUNU = fileURLToPath(new URL('../support/fake-runu.mjs', import.meta.url));
const PRELOAD = fileURLToPath(new URL('../support/as-darwin.mjs', import.meta.url));

describeE2e('the daemon on a Mac, as far as Linux can play one', () => {
  const address = TestDaemon.makeAddress();
  const folder = mkdtempSync(join(tmpdir(), 'drydock-as-darwin-'));
  let daemon: TestDaemon;
  beforeAll(async () => {
    // The double runs on the Linux that it is on.
    const runtimes = { runu: { path: RUNU, runtimeArgs: ['--debug'] } };
    writeFileSync(join(folder, 'daemon.json'), JSON.stringify({ runtimes }));
    daemon = await TestDaemon.launch(address, ['--config-file', join(folder, 'daemon.json')], {
      env: {
        NODE_OPTIONS: `--import ${PRELOAD}`,
        FAKE_RUNU_LOG: join(folder, 'log'),
        FAKE_RUNU_BOOT_MS: '300',
      },
    });
  });
  afterAll(async () => {
    await daemon.stop('SIGTERM');
    TestDaemon.forget(address);
    rmSync(folder, { recursive: true });
  });

  it('starts, and says what it is and what it lacks', async () => {
    const { body } = await daemon.api('GET', '/info');
    const info = JSON.parse(body) as Record<string, unknown>;
    expect(info).toMatchObject({
      OSType: 'darwin',
      DefaultRuntime: 'drydock',
      SecurityOptions: ['name=seatbelt,profile=default'],
      CpuCfsQuota: false,
      MemoryLimit: false,
      Warnings: expect.arrayContaining([
        expect.stringContaining('No CPU quota'),
        expect.stringContaining('System Integrity Protection'),
        expect.stringMatching(/network: partial: by a proxy of its own .* the profile lets it connect to/),
        expect.stringMatching(/system calls: none: there is no filter/),
      ]),
      JailReports: {
        drydock: expect.arrayContaining([expect.objectContaining({ feature: 'pid namespace' })]),
      },
    });
  });

  it('refuses what a jail there cannot keep, and warns of what it keeps in part', async () => {
    const image = tarOf([directory('bin'), file('bin/app', 'no Mach-O', { mode: 0o755 })]);
    await daemon.ok(['import', '-', 'app'], { input: image });
    const inspected = await daemon.ok(['image', 'inspect', '-f', '{{.Os}}', 'app']);
    expect(inspected).toBe('darwin');
    const create = (HostConfig: object) =>
      daemon.api('POST', '/containers/create', { Image: 'app', Cmd: ['/bin/app'], HostConfig });
    const privileged = await create({ Privileged: true });
    expect([privileged.status, privileged.body]).toEqual([
      400,
      expect.stringContaining('cannot be privileged'),
    ]);
    await daemon.ok(['network', 'create', '--internal', 'inside']);
    const attached = await create({ NetworkMode: 'inside' });
    expect([attached.status, attached.body]).toEqual([
      201,
      expect.stringContaining('network: asked attached, got partial: by a proxy of its own'),
    ]);
    const alone = await create({ NetworkMode: 'none', Memory: 64 << 20 });
    expect([alone.status, alone.body]).toEqual([
      201,
      expect.stringContaining('memory: asked 67108864, got partial'),
    ]);
  });

  it('runs programs by a runtime with a kernel of its own, as daemon.json names it', async () => {
    const script = (text: string): string => `#!/bin/sh\n${text}\n`;
    const programs = {
      'bin/greet': 'read name; echo "$GREETING, $name, user $UID_ASKED"; echo aside >&2; exit 7',
      'bin/wait': 'exec sleep 1000',
      'bin/say': 'echo "said $1"; exit 3',
    };
    const files = Object.entries(programs).map(([name, text]) => file(name, script(text), { mode: 0o755 }));
    await daemon.ok(['import', '-', 'linux-app'], { input: tarOf([directory('bin'), ...files]) });
    const options = ['--runtime', 'runu', '--network', 'none'];
    const greet = [
      'run',
      '--rm',
      '-i',
      ...options,
      '-e',
      'GREETING=ahoy',
      '-u',
      '5',
      'linux-app',
      '/bin/greet',
    ];
    const { stdout, stderr, code } = await daemon.run(greet, { input: 'sailor\n' });
    expect([stdout, code]).toEqual(['ahoy, sailor, user 5\n', 7]);
    expect(stderr).toContain('aside\n');

    const created = await daemon.run([
      'create',
      '--name',
      'kept',
      '-m',
      '64m',
      ...options,
      'linux-app',
      '/bin/wait',
    ]);
    expect(created.stderr).toMatch(/limits: asked memoryBytes.*, got none: a Mac has no control groups/);
    await daemon.ok(['start', 'kept']);
    const said = await daemon.run(['exec', 'kept', '/bin/say', 'hello']);
    expect([said.stdout, said.code]).toEqual(['said hello\n', 3]);
    await daemon.ok(['pause', 'kept']);
    await daemon.ok(['unpause', 'kept']);
    await daemon.ok(['kill', 'kept']);
    expect(await daemon.ok(['wait', 'kept'])).toBe('137');
    const log = readFileSync(join(folder, 'log'), 'utf8');
    expect(log).toMatch(/^--debug --version\n--debug --root \S+ run --bundle \S+ [0-9a-f]{64}\n/);
    expect(log).toMatch(/--debug --root \S+ delete --force [0-9a-f]{64}\n/);
    for (const [wish, said] of [
      [['--network', 'bridge'], 'has no network of its own'],
      [['--network', 'none', '-t'], 'has no terminal'],
      [['--network', 'none', '--privileged'], 'cannot be privileged'],
    ] as const) {
      const refused = await daemon.run(['create', '--runtime', 'runu', ...wish, 'linux-app', '/bin/wait']);
      expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining(said)]);
    }
    // Only what is there when it starts has places.
    const volume = ['-v', `${folder}:/data`];
    const mounted = await daemon.run(['run', '--rm', ...options, ...volume, 'linux-app', '/bin/wait']);
    expect([mounted.code, mounted.stderr]).toEqual([125, expect.stringContaining('cannot show')]);
    await daemon.ok(['rm', 'kept']);
  });
});
