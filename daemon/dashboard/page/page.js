/**
 * The page: asks for a snapshot once a second and shows it. Rows stay the same elements while they are shown, so that whoever works with
 * the keyboard or a screen reader keeps their place.
 */
import { addressOf, bytes, duration } from './format.js';
import { drawMap, drawPlot } from './graphs.js';

const EVERY_MS = 1000;
const SAMPLES = 120;
const RECORD_S = 5;
const token = location.hash.slice(1);
const byId = (id) => document.getElementById(id);

/** A table in a section: a caption, heads, and rows that are kept by key. */
class Table {
  #columns;
  #body = document.createElement('tbody');
  #empty = document.createElement('p');
  #rows = new Map();
  #table = document.createElement('table');

  /** @param columns title, what a row shows there (text or an element), and a class */
  constructor(sectionId, caption, columns, empty) {
    this.#columns = columns;
    const head = document.createElement('tr');
    for (const { title, kind } of columns) {
      const cell = document.createElement('th');
      cell.scope = 'col';
      cell.textContent = title;
      if (kind) cell.className = kind;
      head.append(cell);
    }
    const thead = document.createElement('thead');
    thead.append(head);
    const title = document.createElement('caption');
    title.textContent = caption;
    this.#table.append(title, thead, this.#body);
    this.#empty.className = 'empty';
    this.#empty.textContent = empty;
    byId(sectionId).append(this.#table, this.#empty);
  }

  /** @param entries key and row, in the order to show */
  show(entries) {
    this.#empty.hidden = entries.length > 0;
    const wanted = new Set(entries.map(([key]) => key));
    for (const [key, row] of this.#rows)
      if (!wanted.has(key)) {
        row.remove();
        this.#rows.delete(key);
      }
    for (const [at, [key, values]] of entries.entries()) {
      const row = this.#rows.get(key) ?? this.#make(key, values);
      if (this.#body.children[at] !== row) this.#body.insertBefore(row, this.#body.children[at] ?? null);
      for (const [column, { text }] of this.#columns.entries()) {
        const cell = row.children[column];
        if (text && cell.textContent !== text(values)) cell.textContent = text(values);
      }
    }
  }

  #make(key, values) {
    const row = document.createElement('tr');
    for (const { kind, element } of this.#columns) {
      const cell = row.insertCell();
      if (kind) cell.className = kind;
      if (element) cell.append(element(values));
    }
    this.#rows.set(key, row);
    return row;
  }
}

async function ask(path) {
  const response = await fetch(path, { headers: { authorization: `Bearer ${token}` } });
  if (!response.ok) throw new Error((await response.text()).trim());
  return response;
}

/** Records the flow for some seconds, and hands the file to the browser. */
async function record(flow, button) {
  // Not `disabled`, which would take the focus away.
  if (button.getAttribute('aria-disabled') === 'true') return;
  button.setAttribute('aria-disabled', 'true');
  button.textContent = `recording ${RECORD_S} s`;
  try {
    const { network, protocol, guest, target } = flow;
    const query = new URLSearchParams({ network, protocol, guest, target, seconds: String(RECORD_S) });
    const file = await (await ask(`/api/capture?${query}`)).blob();
    const link = document.createElement('a');
    link.href = URL.createObjectURL(file);
    link.download = `${flow.from}-${flow.protocol}-${flow.id}.pcap`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    button.textContent = 'pcap';
  } catch (error) {
    button.textContent = 'pcap failed';
    byId('status').textContent = error.message;
  }
  button.removeAttribute('aria-disabled');
}

function pcapButton(flow) {
  const button = document.createElement('button');
  button.type = 'button';
  button.textContent = 'pcap';
  button.setAttribute('aria-label', `pcap of ${flow.protocol} from ${flow.from} to ${flow.target}`);
  button.addEventListener('click', () => record(flow, button));
  return button;
}

const number = 'number';
const containers = new Table(
  'containers',
  'Containers',
  [
    { title: 'Name', text: ({ name }) => name },
    { title: 'Image', text: ({ image }) => image },
    { title: 'Status', text: ({ status }) => status },
    { title: 'Id', text: ({ id }) => id },
  ],
  'There are no containers.',
);
const flows = new Table(
  'flows',
  'Flows',
  [
    { title: 'From', text: ({ from }) => from },
    { title: 'Protocol', text: ({ protocol }) => protocol },
    { title: 'Guest', text: ({ guest }) => guest },
    { title: 'Other side', text: ({ target }) => target },
    { title: 'State', text: ({ state }) => state },
    { title: 'Sent', kind: number, text: ({ bytesFromGuest }) => bytes(bytesFromGuest) },
    { title: 'Received', kind: number, text: ({ bytesToGuest }) => bytes(bytesToGuest) },
    { title: 'RTT', kind: number, text: ({ rttMs }) => duration(rttMs) },
    { title: 'Sent again', kind: number, text: ({ retransmits }) => String(retransmits ?? '') },
    { title: 'Age', kind: number, text: ({ ageMs }) => duration(ageMs) },
    { title: 'Record', element: pcapButton },
  ],
  'Nobody talks to the outside now.',
);
const denied = new Table(
  'denied',
  'Denied',
  [
    { title: 'From', kind: 'bad', text: ({ from }) => from },
    { title: 'Protocol', text: ({ protocol }) => protocol },
    { title: 'To', text: ({ target, name }) => (name ? `${target} (${name})` : target) },
    { title: 'Network', text: ({ network }) => network },
    { title: 'Times', kind: number, text: ({ count }) => String(count) },
    { title: 'Last', kind: number, text: ({ idleMs }) => `${duration(idleMs)} ago` },
  ],
  'Nothing was denied.',
);
const dns = new Table(
  'dns',
  'DNS questions',
  [
    { title: 'From', text: ({ from }) => from },
    { title: 'Name', text: ({ name }) => name },
    { title: 'Type', text: ({ type }) => type },
    { title: 'Answer', text: ({ outcome, answers }) => (answers > 0 ? `${outcome}, ${answers}` : outcome) },
    { title: 'Took', kind: number, text: ({ tookMs }) => duration(tookMs) },
  ],
  'Nobody has asked yet.',
);
const leases = new Table(
  'leases',
  'Addresses',
  [
    { title: 'Address', text: ({ address }) => address },
    { title: 'Name', text: ({ name, from }) => name ?? from },
    { title: 'MAC', text: ({ mac }) => mac },
    { title: 'State', text: ({ state }) => state },
    { title: 'Network', text: ({ network }) => network },
    { title: 'Left', kind: number, text: ({ leftMs }) => duration(leftMs) },
  ],
  'No address is in use.',
);
const files = new Table(
  'files',
  'File operations',
  [
    { title: 'Container', text: ({ container }) => container },
    { title: 'Folder', text: ({ destination }) => destination },
    { title: 'On the host', text: ({ source }) => source },
    { title: 'Operation', text: ({ name }) => name },
    { title: 'Count', kind: number, text: ({ count }) => String(count) },
    { title: 'Median', kind: number, text: ({ p50Us }) => duration(p50Us / 1000) },
    { title: '99 %', kind: number, text: ({ p99Us }) => duration(p99Us / 1000) },
  ],
  'No folder of the host is mounted.',
);

const samples = [];
let before = new Map();

/** Bytes per second since the snapshot before. */
function measure(all, timeMs) {
  const now = new Map(all.map((flow) => [flow.key, flow]));
  const seconds = (timeMs - (before.timeMs ?? timeMs)) / 1000;
  const sample = { toGuests: 0, fromGuests: 0 };
  if (seconds > 0)
    for (const [key, flow] of now) {
      const known = before.get(key) ?? { bytesToGuest: 0, bytesFromGuest: 0 };
      sample.toGuests += (flow.bytesToGuest - known.bytesToGuest) / seconds;
      sample.fromGuests += (flow.bytesFromGuest - known.bytesFromGuest) / seconds;
    }
  before = now;
  before.timeMs = timeMs;
  samples.push(sample);
  if (samples.length > SAMPLES) samples.shift();
  byId('plot').replaceChildren(drawPlot(samples, SAMPLES));
  byId('rates').textContent =
    `${bytes(sample.toGuests)}/s to containers, ${bytes(sample.fromGuests)}/s from them, in ${all.length} flows`;
}

/** The entries of all networks, each with its network and the name of its container. */
function ofAll(networks, list, addressIn) {
  return networks.flatMap((network) =>
    network[list].map((entry) => {
      const address = addressIn(entry);
      return { ...entry, network: network.name, from: network.names[address] ?? address };
    }),
  );
}

function show(snapshot) {
  const { networks } = snapshot;
  const all = ofAll(networks, 'flows', ({ guest }) => addressOf(guest))
    .map((flow) => ({ ...flow, key: `${flow.network} ${flow.protocol} ${flow.id}` }))
    .sort((a, b) => b.bytesToGuest + b.bytesFromGuest - a.bytesToGuest - a.bytesFromGuest);
  measure(all, snapshot.timeMs);
  byId('map').replaceChildren(drawMap(all));
  containers.show(snapshot.containers.map((row) => [row.id, row]));
  flows.show(all.map((row) => [row.key, row]));
  denied.show(
    ofAll(networks, 'denied', ({ guest }) => guest)
      .reverse()
      .map((row) => [`${row.network} ${row.guest} ${row.protocol} ${row.target}`, row]),
  );
  dns.show(
    ofAll(networks, 'dns', ({ guest }) => guest)
      .reverse()
      .map((row, at) => [at, row]),
  );
  leases.show(
    ofAll(networks, 'leases', ({ address }) => address).map((row) => [`${row.network} ${row.address}`, row]),
  );
  files.show(
    snapshot.folders.flatMap(({ operations, ...folder }) =>
      operations
        .sort((a, b) => b.count - a.count)
        .map((row) => [`${folder.container} ${folder.destination} ${row.name}`, { ...folder, ...row }]),
    ),
  );
}

const pause = byId('pause');
const isPaused = () => pause.getAttribute('aria-pressed') === 'true';
pause.addEventListener('click', () => {
  pause.setAttribute('aria-pressed', String(!isPaused()));
  byId('status').textContent = isPaused() ? 'paused' : 'live';
});

async function turn() {
  if (!isPaused())
    try {
      show(await (await ask('/api/snapshot')).json());
      // Said once: a status that changes each second would be read aloud each second.
      if (byId('status').textContent !== 'live') byId('status').textContent = 'live';
    } catch (error) {
      byId('status').textContent = `no answer: ${error.message}`;
    }
  setTimeout(turn, EVERY_MS);
}
await turn();
