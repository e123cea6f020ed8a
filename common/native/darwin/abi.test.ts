/** The table of Darwin's interface against what a compiler found in Apple's headers (tools/darwin-abi.mjs). */
import { readFileSync } from 'node:fs';
import koffi from 'koffi';
import { describe, expect, it } from 'vitest';
import { CONSTANTS, INTEGERS, PROTOTYPES, parsePrototype, STRUCTS, type StructLayout } from './abi.ts';
import { symbolOf } from './library.ts';

interface Golden {
  targets: string[];
  numbers: Record<string, number>;
  functions: string[];
}

const golden: Golden = JSON.parse(readFileSync(new URL('abi.golden.json', import.meta.url), 'utf8'));

function numbersOfTable(): Record<string, number> {
  const numbers: Record<string, number> = {};
  for (const constants of Object.values(CONSTANTS)) Object.assign(numbers, constants);
  for (const [name, { size, fields }] of Object.entries<StructLayout>(STRUCTS)) {
    numbers[`sizeof ${name}`] = size;
    for (const [field, offset] of Object.entries(fields)) numbers[`${name} ${field}`] = offset;
  }
  for (const [type, native] of Object.entries(INTEGERS)) numbers[`sizeof ${type}`] = koffi.sizeof(native);
  return numbers;
}

describe('the table of Darwin’s binary interface', () => {
  it('has the numbers that Apple’s headers have, on both architectures, and no others', () => {
    expect(golden.targets).toEqual(['aarch64-macos', 'x86_64-macos']);
    // sys/ioctl.h makes requests of unsigned long; a negative one here would reach the kernel as another number.
    expect(numbersOfTable()).toEqual(golden.numbers);
  });

  it('has the prototypes that were compiled and linked', () => {
    expect(Object.values(PROTOTYPES).flat().toSorted()).toEqual(golden.functions);
  });

  it('declares as variadic what is, since Apple’s arm64 passes such arguments on the stack', () => {
    const variadic = golden.functions.filter((text) => parsePrototype(text).parameters.includes('...'));
    expect(variadic.map((text) => parsePrototype(text).name)).toEqual([
      'fcntl',
      'ioctl',
      'openat',
      'sandbox_check',
    ]);
    const fixed = new Set(golden.functions.map((text) => parsePrototype(text).name));
    for (const name of ['open', 'sem_open', 'shm_open', 'syscall']) expect(fixed).not.toContain(name);
  });
});

it('calls on x86-64 those of two versions of a function that Apple’s headers call', () => {
  const symbols = (architecture: string): string[] =>
    ['fstat', 'fstatat', 'fstatfs', 'getattrlistbulk'].map((name) => symbolOf(name, architecture));
  expect(symbols('x64')).toEqual(['fstat$INODE64', 'fstatat$INODE64', 'fstatfs$INODE64', 'getattrlistbulk']);
  expect(symbols('arm64')).toEqual(['fstat', 'fstatat', 'fstatfs', 'getattrlistbulk']);
});

describe('a prototype', () => {
  it.each([
    ['int nothing(void)', 'nothing', 'int32', []],
    ['int fcntl(int fd, int command, ...)', 'fcntl', 'int32', ['int32', 'int32', '...']],
    ['void *dlopen(const char *path, int mode)', 'dlopen', 'void *', ['str', 'int32']],
    ['int mknod(const char *path, mode_t mode, dev_t device)', 'mknod', 'int32', ['str', 'uint16', 'int32']],
    ['int ioctl(int fd, unsigned long request, ...)', 'ioctl', 'int32', ['int32', 'uint64', '...']],
  ])('%s is read for koffi', (text, name, result, parameters) =>
    expect(parsePrototype(text)).toMatchObject({ name, result, parameters }),
  );

  it('is one that koffi takes', () => {
    for (const text of golden.functions) {
      const { name, result, parameters } = parsePrototype(text);
      expect(() => koffi.proto(`proto_${name}`, result, parameters), text).not.toThrow();
    }
  });
});
