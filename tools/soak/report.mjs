// The report of a soak: what was flat and what was not, as text for the docs, and the plots.
const WIDTH = 760;
const HEIGHT = 120;
const LEFT = 70;
const RIGHT = 20;

/** What is watched: how a sample is read, and how much it may grow from the first third to the last. */
export const WATCHED = [
  { key: 'rssMib', name: 'resident memory of the daemon', unit: 'MiB', share: 0.1, slack: 16 },
  { key: 'fds', name: 'descriptors of the daemon', unit: '', share: 0.01, slack: 32 },
  { key: 'threads', name: 'threads of the daemon', unit: '', share: 0, slack: 2 },
  { key: 'processes', name: 'processes of the daemon beside containers', unit: '', share: 0, slack: 4 },
  { key: 'loopP50', name: 'event loop late, median of a second', unit: 'ms', share: 0.5, slack: 5 },
  { key: 'loopP99', name: 'event loop late, 99th percentile', unit: 'ms', share: 0.5, slack: 25 },
  { key: 'roundTripMs', name: 'round trip of a word on a flow, median', unit: 'ms', share: 0.5, slack: 5 },
  { key: 'flows', name: 'flows held', unit: '', share: 0.01, slack: 100 },
];

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
const shown = (value) => (value >= 100 ? String(Math.round(value)) : value.toFixed(1));

/** First and last third of each watched value, and whether it stayed. */
export function verdicts(samples) {
  const third = Math.floor(samples.length / 3);
  return WATCHED.map(({ key, name, unit, share, slack }) => {
    const values = samples.map((sample) => sample[key] ?? 0);
    const first = median(values.slice(0, third));
    const last = median(values.slice(-third));
    return {
      key,
      name,
      unit,
      first,
      last,
      max: Math.max(...values),
      flat: last <= first * (1 + share) + slack,
    };
  });
}

/** One line per watched value, on its own scale from zero. */
export function plot(samples, title) {
  const seconds = samples.at(-1)?.second ?? 1;
  const parts = WATCHED.map(({ key, name, unit }, index) => {
    const top = 40 + index * (HEIGHT + 40);
    const values = samples.map((sample) => sample[key] ?? 0);
    const most = Math.max(1, ...values);
    const x = (second) => LEFT + (second / seconds) * (WIDTH - LEFT - RIGHT);
    const y = (value) => top + HEIGHT - (value / most) * HEIGHT;
    const points = samples.map((sample, at) => `${x(sample.second).toFixed(1)},${y(values[at]).toFixed(1)}`);
    return `<text x="${LEFT}" y="${top - 8}">${name}${unit && ` (${unit})`}</text>
<text x="${LEFT - 6}" y="${top + 8}" text-anchor="end" fill="#57606a">${shown(most)}</text>
<text x="${LEFT - 6}" y="${top + HEIGHT}" text-anchor="end" fill="#57606a">0</text>
<path d="M${LEFT} ${top}V${top + HEIGHT}H${WIDTH - RIGHT}" stroke="#8b949e" fill="none"/>
<polyline points="${points.join(' ')}" stroke="#1f6feb" fill="none"/>`;
  });
  const height = 40 + WATCHED.length * (HEIGHT + 40);
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" font-family="sans-serif" font-size="10">
<title>${title}</title>
<rect width="100%" height="100%" fill="#fff"/>
${parts.join('\n')}
<text x="${WIDTH - RIGHT}" y="${height - 16}" text-anchor="end" fill="#57606a">seconds: 0 to ${seconds}</text>
</svg>
`;
}

/** The page of the docs. */
export function page({
  machine,
  containers,
  flows,
  seconds,
  work,
  hours,
  connections,
  talks,
  failed,
  watched,
  left,
  virtual,
}) {
  const rows = watched.map(
    ({ name, unit, first, last, max, flat }) =>
      `| ${name}${unit && ` (${unit})`} | ${shown(first)} | ${shown(last)} | ${shown(max)} | ${flat ? 'flat' : '**grew**'} |`,
  );
  const done = Object.entries(work).map(([kind, count]) => `${count} ${kind}`);
  return `# The soak

Written by \`npm run soak -- --out docs\`: do not edit. Does the daemon stay as it is under a day's work? Two runs answer.

\`\`\`sh static
npm run soak
npm run soak -- --containers 50 --flows 1000 --hours 1 --virtual-hours 1
\`\`\`

*Shown, not run: it takes several minutes.*

## A day's work at once

${containers} containers run, some of them with ${flows} connections to a server on the host in all, over which a word goes and comes back
${Math.round(talks / seconds)} times a second and of which ${Math.round((connections - flows) / seconds)} a second are given up for new ones. Meanwhile the engine is asked for what
eight busy hours ask, as fast as it answers: in ${Math.round(seconds)} seconds it was the work of ${hours.toFixed(1)} hours. Values are medians of the first
and of the last third.

| value | first third | last third | most | |
| --- | --- | --- | --- | --- |
${rows.join('\n')}

Done: ${done.join(', ')}; ${connections} connections made, ${talks} words that came back, ${failed} connections lost. After all containers were
removed the daemon had ${left.fds} descriptors more than before the first, and ${left.litter === 0 ? 'nothing of theirs was left on the machine' : `${left.litter} things of theirs were left on the machine`}.

![memory, descriptors and delays over the run](images/soak.svg)

## Eight hours in virtual time

Two of our stacks and a wire that loses a frame in a thousand, from a seed, with a clock that jumps to what happens next: ${virtual.flows} flows are
held for ${virtual.hours} hours, each says something every ten minutes and is given up for a new one after an hour or so. ${virtual.connections} connections
and ${virtual.frames} frames took ${virtual.seconds} seconds; every byte came back. Memory is that of both stacks, after a collection.

| virtual hour | memory (MiB) | flows | buffers of both stacks (KiB) |
| --- | --- | --- | --- |
${virtual.samples.map(({ hour, heapMib, flows: held, bufferKib }) => `| ${hour} | ${heapMib.toFixed(1)} | ${held} | ${bufferKib} |`).join('\n')}

Machine: ${machine}.
`;
}
