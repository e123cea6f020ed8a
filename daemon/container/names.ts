/** Names for containers that were not given one: an adjective and somebody who built, sailed, or reckoned. */
import { below, type Rng } from '#common/rng';

const ADJECTIVES =
  'able amber brave brisk calm candid clever cosy crisp curious daring deft eager earnest fair fearless fluent frank gentle gleeful hardy hearty honest humble jolly keen kind limber lively lucid mellow merry modest nimble patient placid plucky polite proud quick quiet ready robust sage serene sharp sober spry stoic sturdy sunny supple swift tidy trusty upbeat vivid warm wise witty zealous'.split(
    ' ',
  );
const SURNAMES =
  'abbott archimedes babbage bartik bernerslee boole borg bowditch brunel cerf clarke codd cray curie darwin dijkstra drake euler faraday fermat floyd franklin galileo gauss goldberg hamilton harrison hawking hedy heyerdahl hoare hopper huygens johnson kepler kernighan knuth lamport leavitt liskov lovelace magellan maury maxwell mcclintock mercator moore morris neumann newton noether pascal perlman postel ramanujan ride ritchie shannon stallman thompson torvalds turing wozniak wright'.split(
    ' ',
  );

/** A name that `taken` does not know; after some tries with a digit, as docker does. */
export function randomName(rng: Rng, taken: (name: string) => boolean): string {
  for (let attempt = 0; ; attempt++) {
    const name = `${ADJECTIVES[below(rng, ADJECTIVES.length)]}_${SURNAMES[below(rng, SURNAMES.length)]}`;
    const candidate = attempt < 6 ? name : `${name}${below(rng, attempt < 12 ? 10 : 1_000_000)}`;
    if (!taken(candidate)) return candidate;
  }
}

/** 64 hex digits, as docker's ids. The first twelve are never all decimal: a short id must not look like a number. */
export function newId(rng: Rng): string {
  for (;;) {
    const id = Buffer.from(rng.fill(new Uint8Array(32))).toString('hex');
    if (/[a-f]/.test(id.slice(0, 12))) return id;
  }
}
