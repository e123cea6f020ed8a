/**
 * The daemon on a Linux that it takes for a Mac: that everything it loads there can be loaded, that it starts and stops, and
 * what it says of itself and of containers. What Darwin's own calls do is not known from this: see docs/macos.md.
 */
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { TestDaemon } from '../support/e2e/daemon.ts';
import { describeE2e } from '../support/e2e/session.ts';
import { directory, file, tarOf } from '../support/images.ts';

const PRELOAD = fileURLToPath(new URL('../support/as-darwin.mjs', import.meta.url));

describeE2e('the daemon on a Mac, as far as Linux can play one', () => {
  const address = TestDaemon.makeAddress();
  let daemon: TestDaemon;
  beforeAll(async () => {
    daemon = await TestDaemon.launch(address, [], { env: { NODE_OPTIONS: `--import ${PRELOAD}` } });
  });
  afterAll(async () => {
    await daemon.stop('SIGTERM');
    TestDaemon.forget(address);
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
});
