/** How Go, in which docker is written, reads values. Pure. */

/** strconv.ParseBool; undefined for what is neither. */
export function goBool(text: string): boolean | undefined {
  if (['1', 't', 'T', 'true', 'TRUE', 'True'].includes(text)) return true;
  if (['0', 'f', 'F', 'false', 'FALSE', 'False'].includes(text)) return false;
  return undefined;
}
