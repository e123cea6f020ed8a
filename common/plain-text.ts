/** Texts of strangers on their way to a terminal. */

/**
 * A text without what a terminal obeys: control characters of both ranges, and those that change the direction of what follows.
 * Each is shown as its code instead.
 */
export function plainText(text: string): string {
  return text.replace(/[\p{Cc}\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, (character) => {
    const code = character.codePointAt(0)!.toString(16);
    return code.length <= 2 ? `\\x${code.padStart(2, '0')}` : `\\u${code.padStart(4, '0')}`;
  });
}
