/** What a disk, or somebody with an editor, can do to a record: change its bytes, or its structure. */
import fc from 'fast-check';

/** One change of a JSON file. Numbers that choose a place are taken modulo what there is. */
export type Damage =
  | { kind: 'bytes'; at: number; remove: number; insert: string }
  | { kind: 'empty' }
  | { kind: 'structure'; node: number; value: unknown }
  | { kind: 'missing'; node: number };

const VALUES = [
  null,
  true,
  0,
  -1,
  1e300,
  '',
  'x',
  '\u001b[2J',
  '../../../etc',
  'a\0b',
  [],
  {},
  [null],
  [[]],
  { x: 1 },
];

/** Changes of any kind. */
export const damages: fc.Arbitrary<Damage> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('structure' as const),
      node: fc.nat(),
      value: fc.oneof({ weight: 3, arbitrary: fc.constantFrom(...VALUES) }, fc.jsonValue()),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('missing' as const), node: fc.nat() }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('bytes' as const),
      at: fc.nat(),
      remove: fc.nat(80),
      insert: fc.string({ unit: 'binary', maxLength: 8 }),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: 'empty' as const }) },
);

/** The text of a file after a change. */
export function damaged(text: string, damage: Damage): string {
  if (damage.kind === 'empty') return '';
  if (damage.kind === 'bytes') {
    const at = damage.at % (text.length + 1);
    return text.slice(0, at) + damage.insert + text.slice(at + damage.remove);
  }
  const root: unknown = JSON.parse(text);
  const places = nodes(root);
  const place = places[damage.node % (places.length + 1)];
  if (!place) return damage.kind === 'missing' ? '{}' : JSON.stringify(damage.value);
  if (damage.kind === 'structure') place.holder[place.key] = damage.value;
  else delete place.holder[place.key];
  return JSON.stringify(root);
}

/** Every place in a document below its root. */
function nodes(value: unknown): { holder: Record<string, unknown>; key: string }[] {
  if (value === null || typeof value !== 'object') return [];
  const holder = value as Record<string, unknown>;
  return Object.keys(holder).flatMap((key) => [{ holder, key }, ...nodes(holder[key])]);
}
