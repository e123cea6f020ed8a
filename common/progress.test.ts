import { expect, it } from 'vitest';
import { startProgress } from './progress.ts';

const ERASE = '\r\u001b[K';

function drawn(isTTY: boolean, env: Record<string, string>): string[] {
  const written: string[] = [];
  let now = 0;
  const stream = { isTTY, columns: 45, write: (text: string) => written.push(text) };
  const { report, print, end } = startProgress(stream, env, () => now);
  report('looking at blobs', 1, 4);
  report('too soon after the one before', 2, 4);
  now = 1000;
  report('looking at records, of which there are many', 4, 4);
  now = 2000;
  print('a line of the log\n');
  now = 3000;
  report('reading');
  end();
  now = 4000;
  report('nothing more');
  end();
  return written;
}

it('rewrites one line of a terminal, cut to its width, and erases it at the end and for other lines', () => {
  expect(drawn(true, { NO_COLOR: '1' })).toEqual([
    '\r[######..................]  25 %  looking at\u001b[K',
    '\r[########################] 100 %  looking at\u001b[K',
    ERASE,
    'a line of the log\n',
    '\rreading\u001b[K',
    ERASE,
  ]);
});

it('uses no colour or weight where NO_COLOR is set', () => {
  expect(drawn(true, {})[0]).toContain('\u001b[2m');
  expect(drawn(true, { NO_COLOR: '1' })[0]).not.toContain('\u001b[2m');
});

it('draws nothing where nobody watches: a pipe, or a terminal that cannot move its cursor', () => {
  expect(drawn(false, {})).toEqual(['a line of the log\n']);
  expect(drawn(true, { TERM: 'dumb' })).toEqual(['a line of the log\n']);
});
