/**
 * Protocol buffer messages as tables: a field's name, number and type. Reading and writing of the wire format itself is
 * @bufbuild/protobuf's; the tables give types, defaults and the walk. Unknown fields are skipped, as proto3 asks.
 */
import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire';

/** A type of a field: `T` is what reading gives, `In` what writing takes. */
export interface FieldType<T, In = T> {
  /** The value of a field that is not there. */
  initial(): T;
  /** Reads one occurrence; a repeated field adds it to those before. */
  read(reader: BinaryReader, before: T): T;
  /** Writes the field with its tag; nothing when it has its default. */
  write(writer: BinaryWriter, id: number, value: In): void;
}

// biome-ignore lint/suspicious/noExplicitAny: a table holds fields of all types, and only inference reads them back.
type AnyField = FieldType<any, any>;
type Fields = Record<string, readonly [id: number, type: AnyField]>;
type ReadOf<F> = F extends FieldType<infer T, infer _> ? T : never;
type WrittenOf<F> = F extends FieldType<infer _, infer In> ? In : never;

/** What decoding a message gives: every field has a value. */
type Decoded<F extends Fields> = { [K in keyof F]: ReadOf<F[K][1]> };
/** What encoding a message takes: fields may be left out. */
type Encodable<F extends Fields> = { [K in keyof F]?: WrittenOf<F[K][1]> };

/** A kind of message. */
export interface Message<T, In = Partial<T>> {
  decode(bytes: Uint8Array): T;
  encode(value: In): Uint8Array;
}

/** Declares a message. Decoding throws an Error for bytes that are none. */
export function message<const F extends Fields>(fields: F): Message<Decoded<F>, Encodable<F>> {
  const entries = Object.entries(fields);
  const byId = new Map(entries.map(([name, [id, type]]) => [id, { name, type }]));
  return {
    decode(bytes) {
      const value: Record<string, unknown> = {};
      for (const [name, [, type]] of entries) value[name] = type.initial();
      const reader = new BinaryReader(bytes);
      while (reader.pos < reader.len) {
        const [id, wire] = reader.tag();
        const field = byId.get(id);
        if (field) value[field.name] = field.type.read(reader, value[field.name]);
        else reader.skip(wire, id);
      }
      return value as Decoded<F>;
    },
    encode(value) {
      const writer = new BinaryWriter();
      for (const [name, [id, type]] of entries) {
        const field = (value as Record<string, unknown>)[name];
        if (field !== undefined) type.write(writer, id, field);
      }
      return writer.finish();
    },
  };
}

function scalar<T>(
  initial: T,
  wire: WireType,
  read: (reader: BinaryReader) => T,
  write: (writer: BinaryWriter, value: T) => void,
): FieldType<T> {
  return {
    initial: () => initial,
    read: (reader) => read(reader),
    write(writer, id, value) {
      if (value === initial) return;
      writer.tag(id, wire);
      write(writer, value);
    },
  };
}

export const string: FieldType<string> = scalar(
  '',
  WireType.LengthDelimited,
  (reader) => reader.string(),
  (writer, value) => void writer.string(value),
);
export const bool: FieldType<boolean> = scalar(
  false,
  WireType.Varint,
  (reader) => reader.bool(),
  (writer, value) => void writer.bool(value),
);
export const uint32: FieldType<number> = scalar(
  0,
  WireType.Varint,
  (reader) => reader.uint32(),
  (writer, value) => void writer.uint32(value),
);
/** Exact, for times in nanoseconds. */
export const int64: FieldType<bigint> = scalar(
  0n,
  WireType.Varint,
  (reader) => BigInt(reader.int64()),
  (writer, value) => void writer.int64(value),
);
/** An int64 whose values are sizes and counts. */
export const count: FieldType<number> = scalar(
  0,
  WireType.Varint,
  (reader) => Number(reader.int64()),
  (writer, value) => void writer.int64(value),
);
const NO_BYTES: Uint8Array = new Uint8Array();
export const bytes: FieldType<Uint8Array> = scalar(
  NO_BYTES,
  WireType.LengthDelimited,
  (reader) => reader.bytes(),
  (writer, value) => void writer.bytes(value),
);

/** A message inside another; undefined when it is not there. */
export function nested<T, In>(type: Message<T, In>): FieldType<T | undefined, In | undefined> {
  return {
    initial: () => undefined,
    read: (reader) => type.decode(reader.bytes()),
    write(writer, id, value) {
      if (value !== undefined) writer.tag(id, WireType.LengthDelimited).bytes(type.encode(value));
    },
  };
}

/** Messages, in order. */
export function repeated<T, In>(type: Message<T, In>): FieldType<T[], In[]> {
  return {
    initial: () => [],
    read: (reader, before) => [...before, type.decode(reader.bytes())],
    write(writer, id, values) {
      for (const value of values) writer.tag(id, WireType.LengthDelimited).bytes(type.encode(value));
    },
  };
}

/** Texts, in order. */
export const strings: FieldType<string[]> = {
  initial: () => [],
  read: (reader, before) => [...before, reader.string()],
  write(writer, id, values) {
    for (const value of values) writer.tag(id, WireType.LengthDelimited).string(value);
  },
};

/** Byte strings, in order. */
export const bytesList: FieldType<Uint8Array[]> = {
  initial: () => [],
  read: (reader, before) => [...before, reader.bytes()],
  write(writer, id, values) {
    for (const value of values) writer.tag(id, WireType.LengthDelimited).bytes(value);
  },
};

/** map<string, ...>. Keys of strangers: a Map, so that no name means anything to the language. */
export function map<T, In>(type: FieldType<T, In>): FieldType<Map<string, T>, ReadonlyMap<string, In>> {
  const entry = message({ key: [1, string], value: [2, type] });
  return {
    initial: () => new Map(),
    read(reader, before) {
      const { key, value } = entry.decode(reader.bytes()) as { key: string; value: T };
      return new Map([...before, [key, value]]);
    },
    write(writer, id, values) {
      for (const [key, value] of values)
        writer.tag(id, WireType.LengthDelimited).bytes(entry.encode({ key, value }));
    },
  };
}
