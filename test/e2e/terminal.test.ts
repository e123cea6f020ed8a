import { afterEach, beforeAll, expect, it } from 'vitest';
import { type Docker, IMAGE } from '../support/e2e/daemon.ts';
import { clis, describeE2e, sharedDocker, uniqueName } from '../support/e2e/session.ts';
import { Terminal } from '../support/e2e/terminal.ts';

describeE2e.each(clis)('terminals, $name', ({ cli }) => {
  let docker: Docker;
  const open: Terminal[] = [];
  const terminal = (...args: string[]): Terminal => {
    const opened = new Terminal(
      cli,
      args,
      { ...docker.environment(), TERM: 'xterm' },
      { rows: 33, columns: 111 },
    );
    open.push(opened);
    return opened;
  };

  beforeAll(() => {
    docker = sharedDocker();
  });
  afterEach(async () => {
    for (const opened of open.splice(0)) opened.close();
    await docker.removeAll();
  });

  it('run -it gives an interactive shell a real terminal of the right size, and passes its exit code', async () => {
    const shell = terminal('run', '--rm', '-it', '-e', 'TERM=dumb', IMAGE, 'bash', '--norc');
    await shell.sees(/[#$] $/);
    // The client tells the size once the shell has started.
    shell.type(
      'until stty size | grep 33; do sleep 0.05; done; tty; test -t 0 -a -t 1 -a -t 2 && echo all three\r',
    );
    await shell.sees('33 111');
    await shell.sees('/dev/pts/0');
    await shell.sees('\nall three');
    shell.type('exit 12\r');
    expect(await shell.exited()).toBe(12);
  });

  it('a resized window reaches the shell', async () => {
    const shell = terminal('run', '--rm', '-it', '-e', 'TERM=dumb', IMAGE, 'bash', '--norc');
    await shell.sees(/[#$] $/);
    // The client listens for changes once it has told the first size, some time after the shell's start.
    shell.type('until stty size | grep 33; do sleep 0.05; done; trap "stty size" WINCH; echo set\r');
    await shell.sees('\nset');
    const resizing = setInterval(() => {
      shell.resize(20, 70);
      shell.resize(21, 77);
    }, 250);
    await shell.sees('21 77').finally(() => clearInterval(resizing));
    shell.type('exit\r');
    expect(await shell.exited()).toBe(0);
  });

  it('Ctrl-C interrupts the foreground job, not the shell', async () => {
    const shell = terminal('run', '--rm', '-it', '-e', 'TERM=dumb', IMAGE, 'bash', '--norc');
    await shell.sees(/[#$] $/);
    shell.type('echo going; sleep 1000\r');
    await shell.sees('\ngoing');
    shell.type('\x03');
    shell.type('echo status $?\r');
    await shell.sees('\nstatus 130');
    shell.type('exit\r');
    expect(await shell.exited()).toBe(0);
  });

  it('exec -it opens a further terminal in a running container', async () => {
    const name = uniqueName('exec-it');
    await docker.ok(['run', '-d', '--name', name, IMAGE, 'sleep', '1000']);
    const shell = terminal('exec', '-it', '-e', 'TERM=dumb', name, 'bash', '--norc');
    await shell.sees(/[#$] $/);
    shell.type('stty size; cat /proc/1/comm; tty\r');
    await shell.sees('33 111');
    await shell.sees('\nsleep');
    await shell.sees('/dev/pts/');
    shell.type('exit 3\r');
    expect(await shell.exited()).toBe(3);
  });

  it('the detach keys leave the container running, and attach comes back to it', async () => {
    const name = uniqueName('detach');
    const first = terminal('run', '-it', '-e', 'TERM=dumb', '--name', name, IMAGE, 'bash', '--norc');
    await first.sees(/[#$] $/);
    first.type('MARK=kept; echo set\r');
    await first.sees('\nset');
    first.type('\x10\x11');
    await first.exited();
    expect(await docker.ok(['inspect', name, '--format', '{{.State.Running}}'])).toBe('true');
    const second = terminal('attach', name);
    second.type('echo "mark=$MARK"\r');
    await second.sees('mark=kept');
    second.type('exit 8\r');
    expect(await second.exited()).toBe(8);
  });

  it('logs of a container with a terminal are what the terminal showed', async () => {
    const name = uniqueName('tty-logs');
    await docker.ok(['run', '-t', '--name', name, IMAGE, 'sh', '-c', 'echo line; test -t 1 && echo tty']);
    expect((await docker.run(['logs', name])).stdout).toBe('line\r\ntty\r\n');
  });
});
