// Both engines get the same image: the one that ours has by itself, saved and loaded into the other.
export const IMAGE = 'drydock/host';

export function prepare([ours, theirs], bench) {
  const path = bench.at('image.tar');
  ours.docker('save', '-o', path, IMAGE);
  theirs.docker('load', '-q', '-i', path);
}
