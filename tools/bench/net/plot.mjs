// Draws the results: one group of bars per measure, each on its own scale, the spread as a thin line.
const WIDTH = 760;
const LEFT = 250;
const BAR = 12;
const GAP = 14;
const COLOURS = {
  drydock: '#1f6feb',
  pasta: '#d29922',
  passt: '#d29922',
  slirp4netns: '#a371f7',
  'docker-proxy': '#db61a2',
  rootlesskit: '#bf8700',
  veth: '#8b949e',
  loopback: '#c9d1d9',
  native: '#8b949e',
  bindfs: '#d29922',
  'bindfs, nothing kept': '#bf8700',
  consistent: '#a371f7',
  cached: '#1f6feb',
};

const text = (x, y, words, extra = '') => `<text x="${x}" y="${y}" ${extra}>${words}</text>`;

export function plot({ title = 'The network bench', results, machine }) {
  const parts = [];
  let y = 40;
  for (const { measure, unit, peers } of results) {
    // Growth may be below zero, which no bar shows.
    const found = Object.entries(peers).filter(([, result]) => result && result.min >= 0);
    if (found.length === 0) continue;
    const scale = (WIDTH - LEFT - 90) / Math.max(Number.MIN_VALUE, ...found.map(([, { max }]) => max));
    parts.push(text(8, y + 10, `${measure} (${unit})`));
    for (const [name, { median, min, max }] of found) {
      const fill = COLOURS[name] ?? '#2da44e';
      const middle = y + BAR / 2;
      parts.push(
        `<rect x="${LEFT}" y="${y}" width="${(median * scale).toFixed(1)}" height="${BAR - 2}" fill="${fill}"/>`,
      );
      const [from, to] = [min, max].map((value) => (LEFT + value * scale).toFixed(1));
      parts.push(`<path d="M${from} ${middle - 1}H${to}" stroke="#57606a"/>`);
      parts.push(
        text(
          LEFT + max * scale + 6,
          y + 9,
          `${name} ${median >= 100 ? Math.round(median) : median.toFixed(1)}`,
        ),
      );
      y += BAR;
    }
    y += GAP;
  }
  const caption = `${machine.cpus} x ${machine.model}, Linux ${machine.kernel}, Node ${machine.node}; medians, the line is the spread`;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${y}" font-family="sans-serif" font-size="10">
<title>${title}: medians and their spread</title>
<rect width="100%" height="100%" fill="#fff"/>
${text(8, 20, caption, 'fill="#57606a"')}
${parts.join('\n')}
</svg>
`;
}
