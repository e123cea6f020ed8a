/**
 * What a program needs to start: the dynamic linker and the libraries that an ELF file names, found as the dynamic
 * linker would find them. Read from the files themselves, so that nothing is run and no ldd is needed.
 * elf(5); ld.so(8), "DESCRIPTION", for the order of the search.
 */
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs';
import { dirname } from 'node:path';

/** What an ELF file says about itself. */
export interface ElfNeeds {
  /** Path of the dynamic linker; undefined for libraries and static programs. */
  interpreter: string | undefined;
  needed: string[];
  /** Folders that the file itself names, with $ORIGIN resolved. */
  runPaths: string[];
}

const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const PT_INTERP = 3;
const DT_NEEDED = 1n;
const DT_STRTAB = 5n;
const DT_STRSZ = 10n;
const DT_RPATH = 15n;
const DT_RUNPATH = 29n;
/** A string table beyond this is no program's. */
const TABLE_BYTES_MAX = 64 << 20;

interface Segment {
  type: number;
  offset: number;
  address: bigint;
  size: number;
}

function readAt(fd: number, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  return bytes.subarray(0, readSync(fd, bytes, 0, length, offset));
}

function cString(table: Buffer, offset: number): string {
  const end = table.indexOf(0, offset);
  return table.toString('utf8', offset, end < 0 ? table.length : end);
}

function readSegments(fd: number, header: Buffer): Segment[] {
  const count = header.readUInt16LE(56);
  const entryBytes = header.readUInt16LE(54);
  const table = readAt(fd, Number(header.readBigUInt64LE(32)), count * entryBytes);
  return Array.from({ length: count }, (_, index) => {
    const at = index * entryBytes;
    return {
      type: table.readUInt32LE(at),
      offset: Number(table.readBigUInt64LE(at + 8)),
      address: table.readBigUInt64LE(at + 16),
      size: Number(table.readBigUInt64LE(at + 32)),
    };
  });
}

/** Reads a 64-bit little-endian ELF file; undefined when the file is something else. */
export function readElf(path: string): ElfNeeds | undefined {
  const fd = openSync(path, 'r');
  try {
    const header = readAt(fd, 0, 64);
    // Magic, 64 bits, little endian: all machines that Node runs on, s390x apart.
    if (header.length < 64 || header.toString('latin1', 0, 6) !== '\x7fELF\x02\x01') return undefined;
    const segments = readSegments(fd, header);
    const interp = segments.find((segment) => segment.type === PT_INTERP);
    const dynamic = segments.find((segment) => segment.type === PT_DYNAMIC);
    return {
      interpreter: interp && cString(readAt(fd, interp.offset, interp.size), 0),
      ...(dynamic ? readDynamic(fd, path, segments, dynamic) : { needed: [], runPaths: [] }),
    };
  } finally {
    closeSync(fd);
  }
}

function readDynamic(
  fd: number,
  path: string,
  segments: Segment[],
  dynamic: Segment,
): Pick<ElfNeeds, 'needed' | 'runPaths'> {
  const table = readAt(fd, dynamic.offset, dynamic.size);
  const entries: [tag: bigint, value: bigint][] = [];
  for (let at = 0; at + 16 <= table.length; at += 16)
    entries.push([table.readBigUInt64LE(at), table.readBigUInt64LE(at + 8)]);
  const value = (tag: bigint): bigint | undefined => entries.find(([each]) => each === tag)?.[1];
  const address = value(DT_STRTAB) ?? 0n;
  const load = segments.find(
    (segment) =>
      segment.type === PT_LOAD &&
      address >= segment.address &&
      address < segment.address + BigInt(segment.size),
  );
  if (!load) return { needed: [], runPaths: [] };
  const size = Math.min(Number(value(DT_STRSZ) ?? 0n), TABLE_BYTES_MAX);
  const strings = readAt(fd, load.offset + Number(address - load.address), size);
  const all = (tag: bigint): string[] =>
    entries.flatMap(([each, offset]) => (each === tag ? [cString(strings, Number(offset))] : []));
  const runPaths = [...all(DT_RUNPATH), ...all(DT_RPATH)]
    .flatMap((paths) => paths.split(':'))
    .map((folder) => folder.replace(/\$ORIGIN|\$\{ORIGIN\}/g, dirname(path)));
  return { needed: all(DT_NEEDED), runPaths };
}

/** Folders of /etc/ld.so.conf and what it includes, then the linker's own. */
export function libraryFolders(): string[] {
  const folders: string[] = [];
  const readConf = (path: string): void => {
    if (!existsSync(path)) return;
    for (const raw of readFileSync(path, 'utf8').split('\n')) {
      const line = raw.replace(/#.*/, '').trim();
      const include = /^include\s+(.*)\/\*\.conf$/.exec(line)?.[1];
      if (include !== undefined && existsSync(include)) {
        for (const name of readdirSync(include).sort())
          if (name.endsWith('.conf')) readConf(`${include}/${name}`);
      } else if (line.startsWith('/')) folders.push(line);
    }
  };
  readConf('/etc/ld.so.conf');
  const multiarch = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' }[process.arch as string];
  if (multiarch) folders.push(`/lib/${multiarch}`, `/usr/lib/${multiarch}`);
  return [...new Set([...folders, '/lib64', '/usr/lib64', '/lib', '/usr/lib', '/usr/local/lib'])];
}

/**
 * The dynamic linker and all libraries of a program, its libraries' libraries included.
 * @returns paths as found, possibly symlinks; and the names of libraries that are nowhere.
 */
export function findLibraries(
  program: string,
  folders: readonly string[],
  known: Map<string, ElfNeeds | undefined>,
): { paths: string[]; missing: string[] } {
  const paths = new Set<string>();
  const missing: string[] = [];
  const visit = (path: string, inherited: string[]): void => {
    const needs = known.has(path) ? known.get(path) : readElf(path);
    known.set(path, needs);
    if (!needs) return;
    if (needs.interpreter !== undefined) paths.add(needs.interpreter);
    const search = [...needs.runPaths, ...inherited, ...folders];
    for (const name of needs.needed) {
      const found = name.includes('/') ? name : search.map((folder) => `${folder}/${name}`).find(existsSync);
      // musl's libc is its dynamic linker, under another name.
      if (found === undefined && needs.interpreter !== undefined && /^libc\.musl/.test(name)) continue;
      if (found === undefined) missing.push(name);
      else if (!paths.has(found)) {
        paths.add(found);
        visit(found, [...needs.runPaths, ...inherited]);
      }
    }
  };
  visit(program, []);
  return { paths: [...paths], missing };
}
