import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type Instruction, machineProgram, thisMachine } from './machine-code.ts';

const text = (value: string): Uint8Array => Buffer.from(`${value}\0`);

function run(instructions: Instruction[], args: string[] = [], input = ''): ReturnType<typeof spawnSync> {
  const folder = mkdtempSync(join(tmpdir(), 'drydock-code-'));
  try {
    const path = join(folder, 'program');
    writeFileSync(path, machineProgram(thisMachine(), instructions));
    chmodSync(path, 0o700);
    return spawnSync(path, args, { env: { NAME: 'value' }, encoding: 'utf8', input, timeout: 10_000 });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe.skipIf(process.platform !== 'linux')('a program of system calls', () => {
  it('makes them in order and ends with status 0', () => {
    const say = (word: string): Instruction => ({
      call: 'write',
      operands: [1, Buffer.from(word), word.length],
    });
    expect(run([say('one '), say('two')])).toMatchObject({ stdout: 'one two', status: 0 });
  });

  it('passes its arguments and its environment on', () => {
    const path = text('/bin/sh');
    const result = run(
      [{ call: 'execve', operands: [path, 'argv', 'envp'] }],
      ['-c', 'echo $0 $1 $NAME', 'a', 'b'],
    );
    expect(result).toMatchObject({ stdout: 'a b value\n', status: 0 });
  });

  it('reads into scratch memory', () => {
    const result = run(
      [
        { call: 'read', operands: [0, 'scratch', 3] },
        { call: 'write', operands: [1, 'scratch', 3] },
      ],
      [],
      'xyz',
    );
    expect(result.stdout).toBe('xyz');
  });

  it('says what failed, by errno where that was told, and does nothing more', () => {
    const failures = [
      { code: 13, fd: 2, text: 'not allowed', status: 3 },
      { code: 2, fd: 2, text: 'not there', status: 4 },
      { fd: 2, text: 'something else', status: 5 },
    ];
    const execute = (path: string): ReturnType<typeof spawnSync> =>
      run([
        { call: 'execve', operands: [text(path), 'argv', 'envp'], failures },
        { call: 'write', operands: [1, text('never'), 5] },
      ]);
    expect(execute('/does-not-exist')).toMatchObject({ stderr: 'not there', stdout: '', status: 4 });
    expect(execute('/')).toMatchObject({ stderr: 'not allowed', stdout: '', status: 3 });
    expect(execute('/bin/sh/x')).toMatchObject({ stderr: 'something else', stdout: '', status: 5 });
  });

  it('starts a child that goes on, and ends as the child has ended', () => {
    const child = (script: string): ReturnType<typeof spawnSync> =>
      run(
        [
          {
            call: 'clone',
            operands: [constants.signals.SIGCHLD, 0, 0, 0, 0],
            parent: [{ call: 'write', operands: [2, text('parent'), 6] }],
          },
          { call: 'execve', operands: [text('/bin/sh'), 'argv', 'envp'] },
        ],
        ['-c', script],
      );
    expect(child('echo child; exit 7')).toMatchObject({ stdout: 'child\n', stderr: 'parent', status: 7 });
    expect(child('kill -9 $$')).toMatchObject({ stderr: 'parent', status: 9 });
  });

  it('does something more once the child has ended, and knows how', () => {
    const result = run(
      [
        {
          call: 'clone',
          operands: [constants.signals.SIGCHLD, 0, 0, 0, 0],
          parent: [],
          afterwards: [{ call: 'write', operands: [1, 'scratch', 4] }],
        },
        { call: 'execve', operands: [text('/bin/sh'), 'argv', 'envp'] },
      ],
      ['-c', 'printf child; exit 7'],
    );
    // As wait4(2) tells it: the exit code in the second byte.
    expect(result).toMatchObject({ stdout: 'child\0\x07\0\0', status: 7 });
  });

  it('goes on when a call succeeds whose failure would end it', () => {
    const failures = [{ fd: 2, text: 'failed', status: 3 }];
    const result = run([
      { call: 'prctl', operands: [38, 1, 0, 0, 0], failures },
      { call: 'write', operands: [1, text('on'), 2] },
    ]);
    expect(result).toMatchObject({ stderr: '', stdout: 'on', status: 0 });
  });
});

/** Checked once with `objdump -d`; arm64 has to be right without an arm64 machine at hand. */
it('has the instructions that an assembler would make for arm64', () => {
  const file = machineProgram(
    'arm64',
    [
      {
        call: 'execve',
        operands: [0x1234_5678_9abc, 'argv', 'envp'],
        failures: [
          { code: 2, fd: 2, text: 'x', status: 4 },
          { fd: 2, text: 'y', status: 5 },
        ],
      },
      { call: 'clone', operands: [17], parent: [{ call: 'write', operands: [1] }] },
      { call: 'ppoll', operands: [0, 'scratch'] },
    ],
    true,
  );
  const words = new Uint32Array(file.slice(120, 120 + 4 * Math.floor((file.length - 120) / 4)).buffer);
  expect([...words].map((word) => word.toString(16).padStart(8, '0'))).toMatchInlineSnapshot(`
    [
      "f94003e9",
      "910023f3",
      "8b090e74",
      "91002294",
      "d10203f5",
      "d2935780",
      "f2aacf00",
      "f2c24680",
      "f2e00000",
      "aa1303e1",
      "aa1403e2",
      "d2801ba8",
      "f2a00008",
      "f2c00008",
      "f2e00008",
      "d4000001",
      "b100081f",
      "54000361",
      "d2800040",
      "f2a00000",
      "f2c00000",
      "f2e00000",
      "d2804f01",
      "f2a00801",
      "f2c00001",
      "f2e00001",
      "d2800022",
      "f2a00002",
      "f2c00002",
      "f2e00002",
      "d2800808",
      "f2a00008",
      "f2c00008",
      "f2e00008",
      "d4000001",
      "d2800080",
      "f2a00000",
      "f2c00000",
      "f2e00000",
      "d2800bc8",
      "f2a00008",
      "f2c00008",
      "f2e00008",
      "d4000001",
      "b6f80360",
      "d2800040",
      "f2a00000",
      "f2c00000",
      "f2e00000",
      "d2805001",
      "f2a00801",
      "f2c00001",
      "f2e00001",
      "d2800022",
      "f2a00002",
      "f2c00002",
      "f2e00002",
      "d2800808",
      "f2a00008",
      "f2c00008",
      "f2e00008",
      "d4000001",
      "d28000a0",
      "f2a00000",
      "f2c00000",
      "f2e00000",
      "d2800bc8",
      "f2a00008",
      "f2c00008",
      "f2e00008",
      "d4000001",
      "d2800220",
      "f2a00000",
      "f2c00000",
      "f2e00000",
      "d2801b88",
      "f2a00008",
      "f2c00008",
      "f2e00008",
      "d4000001",
      "b40004a0",
      "d2800020",
      "f2a00000",
      "f2c00000",
      "f2e00000",
      "d2800808",
      "f2a00008",
      "f2c00008",
      "f2e00008",
      "d4000001",
      "d29fffe0",
      "f2bfffe0",
      "f2dfffe0",
      "f2ffffe0",
      "aa1503e1",
      "d2800002",
      "f2a00002",
      "f2c00002",
      "f2e00002",
      "d2800003",
      "f2a00003",
      "f2c00003",
      "f2e00003",
      "d2802088",
      "f2a00008",
      "f2c00008",
      "f2e00008",
      "d4000001",
      "b94002a9",
      "53087d20",
      "12001929",
      "2a090000",
      "d2800bc8",
      "f2a00008",
      "f2c00008",
      "f2e00008",
      "d4000001",
      "d2800000",
      "f2a00000",
      "f2c00000",
      "f2e00000",
      "aa1503e1",
      "d2800928",
      "f2a00008",
      "f2c00008",
      "f2e00008",
      "d4000001",
      "17fffff6",
      "00000078",
      "00000000",
    ]
  `);
});
