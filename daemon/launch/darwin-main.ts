/** The launcher on Darwin: see main.ts for what a launcher is, darwin.ts for its steps. */
import { fstatSync, readdirSync } from 'node:fs';
import { DarwinCalls } from '#common/native/darwin/calls';
import { receive, send, speakUntilTheEnd } from './channel.ts';
import { becomeSeatbelted, furnishRoot, type ToDarwinLauncher } from './darwin.ts';

function run(): never {
  process.umask(0o022);
  const message = receive<ToDarwinLauncher>();
  if (message.type === 'run') throw new Error('nothing to run yet');
  const darwin = new DarwinCalls();
  furnishRoot(darwin, message.plan);
  send({ type: 'ready' });
  receive<ToDarwinLauncher>();
  const { path, args, env } = becomeSeatbelted(darwin, message.process, message.plan, openDescriptors());
  send({ type: 'executing' });
  return darwin.execve(path, args, env);
}

/** Those in /dev/fd (fdesc(5)), but the one that the folder was read by. */
function openDescriptors(): number[] {
  return readdirSync('/dev/fd')
    .map(Number)
    .filter((fd) => {
      try {
        fstatSync(fd);
        return true;
      } catch {
        return false;
      }
    });
}

speakUntilTheEnd(run);
