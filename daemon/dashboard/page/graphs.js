/** The plot of throughput and the map of who talks to whom, as SVG. Both say the same as the tables beside them. */
import { bytes, duration } from './format.js';

const SVG = 'http://www.w3.org/2000/svg';
const WIDTH = 600;

function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  if (text !== undefined) made.textContent = text;
  return made;
}

function picture(height, label) {
  return shape('svg', { viewBox: `0 0 ${WIDTH} ${height}`, role: 'img', 'aria-label': label });
}

/** The next of 1, 2, 5, 10, 20, ... */
function round(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value) * power;
}

const PLOT_HEIGHT = 190;
const PLOT_TOP = 12;
const PLOT_BOTTOM = PLOT_HEIGHT - 20;
const PLOT_LEFT = 64;

/**
 * Bytes per second over time.
 * @param {{ toGuests: number, fromGuests: number }[]} samples one a second, oldest first
 * @param {number} room how many samples fill the width
 */
export function drawPlot(samples, room) {
  const most = Math.max(1, ...samples.flatMap(({ toGuests, fromGuests }) => [toGuests, fromGuests]));
  const top = round(Math.max(1000, most));
  const xAt = (age) => WIDTH - 2 - (age * (WIDTH - 2 - PLOT_LEFT)) / (room - 1);
  const yAt = (value) => PLOT_BOTTOM - (value / top) * (PLOT_BOTTOM - PLOT_TOP);
  const svg = picture(
    PLOT_HEIGHT,
    `Throughput of the last ${samples.length} seconds, at most ${bytes(most)} per second`,
  );
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const y = yAt(share * top);
    svg.append(shape('line', { class: 'axis', x1: PLOT_LEFT, x2: WIDTH, y1: y, y2: y }));
    if (share % 0.5 === 0)
      svg.append(
        shape(
          'text',
          { class: 'soft', x: PLOT_LEFT - 8, y: y + 4, 'text-anchor': 'end' },
          `${bytes(share * top)}/s`,
        ),
      );
  }
  for (const [age, text, anchor] of [
    [room - 1, `${room} s ago`, 'start'],
    [(room - 1) / 2, `${room / 2} s ago`, 'middle'],
    [0, 'now', 'end'],
  ])
    svg.append(
      shape('text', { class: 'soft', x: xAt(age), y: PLOT_HEIGHT - 4, 'text-anchor': anchor }, text),
    );
  if (samples.length === 0) return svg;
  for (const [kind, of] of [
    ['to-guests', ({ toGuests }) => toGuests],
    ['from-guests', ({ fromGuests }) => fromGuests],
  ]) {
    const points = samples
      .map((sample, at) => `${xAt(samples.length - 1 - at).toFixed(1)},${yAt(of(sample)).toFixed(1)}`)
      .join(' ');
    const area = `${xAt(samples.length - 1).toFixed(1)},${PLOT_BOTTOM} ${points} ${xAt(0).toFixed(1)},${PLOT_BOTTOM}`;
    svg.append(shape('polygon', { class: `plot-area ${kind}`, points: area }));
    svg.append(shape('polyline', { class: `plot-line ${kind}`, points }));
  }
  return svg;
}

/** Lines of a map; more would be no picture any more. */
const LINKS_MAX = 24;
const MAP_LEFT = 170;
const MAP_RIGHT = 400;
const MAP_ROW = 36;
const MAP_HEIGHT_MIN = 190;

/** Flows by who talks to whom: the bytes of all, the longest round trip, and segments sent again. */
function linksOf(flows) {
  const links = new Map();
  for (const { from, to, bytesFromGuest, bytesToGuest, rttMs, retransmits } of flows) {
    const key = `${from} ${to}`;
    const known = links.get(key) ?? { from, to, total: 0, again: 0, rttMs: undefined };
    known.total += bytesFromGuest + bytesToGuest;
    known.again += retransmits ?? 0;
    if (rttMs !== undefined && rttMs !== null) known.rttMs = Math.max(known.rttMs ?? 0, rttMs);
    links.set(key, known);
  }
  return [...links.values()].sort((a, b) => b.total - a.total).slice(0, LINKS_MAX);
}

function factsOf({ total, rttMs, again }) {
  const parts = [bytes(total)];
  if (rttMs !== undefined) parts.push(`RTT ${duration(rttMs)}`);
  if (again > 0) parts.push(`${again} sent again`);
  return parts.join(', ');
}

/**
 * Who talks to whom: containers at the left, others at the right, thicker lines for more bytes, and another colour where segments
 * had to be sent again.
 * @param {{ from: string, to: string, bytesFromGuest: number, bytesToGuest: number, rttMs?: number, retransmits?: number }[]} flows
 */
export function drawMap(flows) {
  const links = linksOf(flows);
  const left = [...new Set(links.map(({ from }) => from))];
  const right = [...new Set(links.map(({ to }) => to))];
  const height = Math.max(Math.max(left.length, right.length) * MAP_ROW, MAP_HEIGHT_MIN);
  const words = links.map((link) => `${link.from} with ${link.to}, ${factsOf(link)}`);
  const svg = picture(
    height,
    links.length > 0 ? `Who talks to whom: ${words.join('; ')}` : 'Nobody talks to the outside',
  );
  const place = (names, name) => ((names.indexOf(name) + 0.5) * height) / names.length;
  for (const [at, link] of links.entries()) {
    const [y1, y2] = [place(left, link.from), place(right, link.to)];
    const middle = (MAP_LEFT + MAP_RIGHT) / 2;
    const d = `M ${MAP_LEFT} ${y1} C ${middle} ${y1} ${middle} ${y2} ${MAP_RIGHT} ${y2}`;
    const kind = link.again > 0 ? 'link lossy' : 'link';
    const path = shape('path', { class: kind, d, 'stroke-width': 1 + Math.log10(1 + link.total) });
    path.append(shape('title', {}, words[at]));
    svg.append(path);
  }
  const end = (x, y, anchor, name, facts) => {
    svg.append(shape('circle', { class: 'end', cx: x, cy: y, r: 4.5 }));
    const text = { x: anchor === 'end' ? x - 12 : x + 12, 'text-anchor': anchor };
    svg.append(shape('text', { ...text, y: y - 2 }, name));
    svg.append(shape('text', { ...text, y: y + 12, class: 'soft' }, facts));
  };
  for (const name of left) {
    const total = links.reduce((sum, link) => sum + (link.from === name ? link.total : 0), 0);
    end(MAP_LEFT, place(left, name), 'end', name, bytes(total));
  }
  for (const name of right) {
    const [first, ...others] = links.filter(({ to }) => to === name);
    const rtts = [first, ...others].flatMap(({ rttMs }) => rttMs ?? []);
    const sum = [first, ...others].reduce(
      ({ total, again }, link) => ({ total: total + link.total, again: again + link.again }),
      { total: 0, again: 0 },
    );
    end(
      MAP_RIGHT,
      place(right, name),
      'start',
      name,
      factsOf({ ...sum, rttMs: rtts.length > 0 ? Math.max(...rtts) : undefined }),
    );
  }
  return svg;
}
