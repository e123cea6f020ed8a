import { describe, expect, it } from 'vitest';
import { applyChangeLines, parseDuration, parsePorts, splitWords, unquote } from './changes.ts';
import type { ImageConfig } from './store.ts';

describe('changes of a configuration', () => {
  it.each<[line: string, before: ImageConfig, after: ImageConfig]>([
    ['CMD echo hi', {}, { Cmd: ['/bin/sh', '-c', 'echo hi'] }],
    ['CMD ["a", "b c"]', {}, { Cmd: ['a', 'b c'] }],
    ["CMD ['a']", {}, { Cmd: ['/bin/sh', '-c', "['a']"] }],
    [
      'CMD echo',
      { Shell: ['/bin/bash', '-lc'] },
      { Shell: ['/bin/bash', '-lc'], Cmd: ['/bin/bash', '-lc', 'echo'] },
    ],
    ['ENTRYPOINT ["/x"]', {}, { Entrypoint: ['/x'] }],
    ['ENTRYPOINT', { Entrypoint: ['/x'] }, { Entrypoint: null }],
    ['env A=b', {}, { Env: ['A=b'] }],
    ['ENV A="b c" D=e\\ f', { Env: ['A=old', 'X=y'] }, { Env: ['A=b c', 'X=y', 'D=e f'] }],
    ['ENV A b c', {}, { Env: ['A=b c'] }],
    ['LABEL a=b "c d"=\'e f\'', { Labels: { z: '1' } }, { Labels: { z: '1', a: 'b', 'c d': 'e f' } }],
    [
      'EXPOSE 80 81/udp 90-91',
      { ExposedPorts: { '1/tcp': {} } },
      { ExposedPorts: { '1/tcp': {}, '80/tcp': {}, '81/udp': {}, '90/tcp': {}, '91/tcp': {} } },
    ],
    ['VOLUME /a /b', {}, { Volumes: { '/a': {}, '/b': {} } }],
    ['VOLUME ["/a b"]', {}, { Volumes: { '/a b': {} } }],
    ['USER 1:2', {}, { User: '1:2' }],
    ['WORKDIR /a', {}, { WorkingDir: '/a' }],
    ['WORKDIR b/../c', { WorkingDir: '/a' }, { WorkingDir: '/a/c' }],
    ['STOPSIGNAL SIGQUIT', {}, { StopSignal: 'SIGQUIT' }],
    ['ONBUILD RUN x', { OnBuild: ['COPY a b'] }, { OnBuild: ['COPY a b', 'RUN x'] }],
    ['HEALTHCHECK NONE', {}, { Healthcheck: { Test: ['NONE'] } }],
    [
      'HEALTHCHECK --interval=1m30s --retries=3 CMD curl x',
      {},
      { Healthcheck: { Test: ['CMD-SHELL', 'curl x'], Interval: 90e9, Retries: 3 } },
    ],
    ['HEALTHCHECK --timeout=500ms CMD ["a"]', {}, { Healthcheck: { Test: ['CMD', 'a'], Timeout: 5e8 } }],
  ])('%s', (line, before, after) => {
    expect(JSON.parse(JSON.stringify(applyChangeLines(before, [line])))).toEqual(after);
  });

  it.each([
    ['RUN x', 'RUN is not a valid change command'],
    ['SHELL ["x"]', 'SHELL is not a valid change command'],
    ['', ' is not a valid change command'],
    ['ENV', 'ENV requires at least one argument'],
    ['ENV A', 'ENV must have two arguments'],
    ['ENV A=b C', 'Syntax error - can\'t find = in "C". Must be of the form: name=value'],
    ['ENV =b', 'ENV names can not be blank'],
    ['EXPOSE x', 'Invalid containerPort: x'],
    ['EXPOSE 0', 'Invalid containerPort: 0'],
    ['EXPOSE 70000', 'Invalid containerPort: 70000'],
    ['EXPOSE 9-8', 'Invalid containerPort: 9-8'],
    ['VOLUME [""]', 'VOLUME specified can not be an empty string'],
    ['STOPSIGNAL a b', 'STOPSIGNAL Invalid signal: a b'],
    ['ONBUILD ONBUILD RUN x', "ONBUILD chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"],
    ['ONBUILD FROM x', "FROM isn't allowed as an ONBUILD trigger"],
    ['HEALTHCHECK FOO', 'HEALTHCHECK Unknown type "FOO" in HEALTHCHECK (try CMD)'],
    ['HEALTHCHECK CMD', 'HEALTHCHECK Missing command after HEALTHCHECK CMD'],
    ['HEALTHCHECK --interval=x CMD a', 'HEALTHCHECK has a bad --interval: x'],
    ['HEALTHCHECK --constructor=1 CMD a', 'HEALTHCHECK Unknown flag: constructor'],
  ])('%j is refused: %s', (line, message) => {
    expect(() => applyChangeLines({}, [line])).toThrow(
      expect.objectContaining({ code: 'ERR_BAD_DOCKERFILE', message }),
    );
  });

  it('durations are those of Go', () => {
    expect(['1h', '1m', '1.5s', '10ms', '0', '2h45m'].map(parseDuration)).toEqual([
      3600e9, 60e9, 1.5e9, 1e7, 0, 9900e9,
    ]);
    expect(['', '1', 's', '1x', '-1s'].map(parseDuration)).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
  });

  it('words keep their quotes until they are taken off', () => {
    expect(splitWords(`a "b c" 'd e'\\ f`)).toEqual(['a', '"b c"', `'d e'\\ f`]);
    expect(unquote(`"b c"'d "e'\\ f"\\x\\""`)).toBe('b cd "e f\\x"');
    expect(parsePorts('53/UDP')).toEqual(['53/udp']);
  });
});
