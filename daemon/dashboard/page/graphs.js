/** The plot of throughput and the map of who talks to whom, as SVG. Both say the same as the tables and the text beside them. */
import { addressOf, bytes } from './format.js';

const SVG = 'http://www.w3.org/2000/svg';
const WIDTH = 1000;

function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  if (text !== undefined) made.textContent = text;
  return made;
}

function picture(height, label) {
  return shape('svg', { viewBox: `0 0 ${WIDTH} ${height}`, role: 'img', 'aria-label': label });
}

/**
 * Bytes per second over time.
 * @param {{ toGuests: number, fromGuests: number }[]} samples oldest first
 * @param {number} room how many samples fill the width
 */
export function drawPlot(samples, room) {
  const height = 120;
  const most = Math.max(1000, ...samples.flatMap(({ toGuests, fromGuests }) => [toGuests, fromGuests]));
  const svg = picture(
    height,
    `Throughput of the last ${samples.length} seconds, at most ${bytes(most)} per second`,
  );
  svg.append(shape('line', { class: 'axis', x1: 0, x2: WIDTH, y1: height - 1, y2: height - 1 }));
  svg.append(shape('text', { x: 4, y: 12 }, `${bytes(most)}/s`));
  for (const [kind, of] of [
    ['to-guests', ({ toGuests }) => toGuests],
    ['from-guests', ({ fromGuests }) => fromGuests],
  ]) {
    const points = samples.map((sample, at) => {
      const x = ((at + room - samples.length) * WIDTH) / (room - 1);
      return `${x.toFixed(1)},${(height - 2 - (of(sample) / most) * (height - 20)).toFixed(1)}`;
    });
    svg.append(shape('polyline', { class: `plot-line ${kind}`, points: points.join(' ') }));
  }
  return svg;
}

/** Lines of a map; more would be no picture any more. */
const LINKS_MAX = 24;

/**
 * Who talks to whom: containers at the left, others at the right, thicker lines for more bytes.
 * @param {{ from: string, target: string, bytesFromGuest: number, bytesToGuest: number }[]} flows
 */
export function drawMap(flows) {
  const links = new Map();
  for (const { from, target, bytesFromGuest, bytesToGuest } of flows) {
    const to = target === '*' ? 'several' : addressOf(target);
    const key = `${from} ${to}`;
    const known = links.get(key) ?? { from, to, total: 0 };
    known.total += bytesFromGuest + bytesToGuest;
    links.set(key, known);
  }
  const shown = [...links.values()].sort((a, b) => b.total - a.total).slice(0, LINKS_MAX);
  const left = [...new Set(shown.map(({ from }) => from))];
  const right = [...new Set(shown.map(({ to }) => to))];
  const height = Math.max(left.length, right.length, 1) * 26 + 10;
  const svg = picture(
    height,
    `Who talks to whom: ${shown.map(({ from, to, total }) => `${from} with ${to}, ${bytes(total)}`).join('; ')}`,
  );
  const place = (names, name) => ((names.indexOf(name) + 0.5) * height) / names.length;
  for (const { from, to, total } of shown) {
    const [y1, y2] = [place(left, from), place(right, to)];
    const d = `M 310 ${y1} C 500 ${y1} 500 ${y2} 690 ${y2}`;
    svg.append(shape('path', { class: 'link', d, 'stroke-width': 1 + Math.log10(1 + total) }));
  }
  for (const name of left) {
    svg.append(shape('circle', { class: 'end', cx: 310, cy: place(left, name), r: 5 }));
    svg.append(shape('text', { x: 298, y: place(left, name) + 4, 'text-anchor': 'end' }, name));
  }
  for (const name of right) {
    svg.append(shape('circle', { class: 'end', cx: 690, cy: place(right, name), r: 5 }));
    svg.append(shape('text', { x: 702, y: place(right, name) + 4 }, name));
  }
  return svg;
}
