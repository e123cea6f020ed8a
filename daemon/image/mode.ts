/** Permissions as chmod(1) takes them: octal, or clauses such as `u=rwX,go-w`. Pure functions. */

const OCTAL = /^[0-7]{1,4}$/;
const CLAUSE = /^([ugoa]*)([-+=])([rwxXst]*)$/;
/** Where a class's three bits are, and its set-id bit. */
const CLASSES: Record<string, { shift: number; setId: number }> = {
  u: { shift: 6, setId: 0o4000 },
  g: { shift: 3, setId: 0o2000 },
  o: { shift: 0, setId: 0 },
};

/** Whether a text is a mode. */
export function isMode(text: string): boolean {
  return OCTAL.test(text) || text.split(',').every((clause) => CLAUSE.test(clause));
}

/** The permissions that a mode makes of others. @param text a mode by {@link isMode} */
export function modeAfter(text: string, before: number, isFolder: boolean): number {
  if (OCTAL.test(text)) return Number.parseInt(text, 8);
  let mode = before & 0o7777;
  for (const clause of text.split(',')) {
    const [, who = '', operator, what = ''] = CLAUSE.exec(clause)!;
    const classes = who === '' || who.includes('a') ? ['u', 'g', 'o'] : [...who];
    // X: execution where somebody has it already, and for folders.
    const runs = what.includes('x') || (what.includes('X') && (isFolder || (mode & 0o111) !== 0));
    const bits = (what.includes('r') ? 4 : 0) | (what.includes('w') ? 2 : 0) | (runs ? 1 : 0);
    let given = what.includes('t') ? 0o1000 : 0;
    let all = 0;
    for (const name of classes) {
      const { shift, setId } = CLASSES[name]!;
      given |= (bits << shift) | (what.includes('s') ? setId : 0);
      all |= (7 << shift) | setId;
    }
    if (operator === '+') mode |= given;
    else if (operator === '-') mode &= ~given;
    else mode = (mode & ~all) | given;
  }
  return mode;
}
