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
const NUMBER = 'number';
const byId = (id) => document.getElementById(id);

/** A table in a section: a caption, heads, and rows that are kept by key. */
class Table {
  #columns;
  #body = document.createElement('tbody');
  #empty = document.createElement('p');
  #rows = new Map();
  #table = document.createElement('table');

  /** @param columns title, what a row shows there (text or an element), and a class or what makes one of a row */
  constructor(sectionId, caption, columns, empty) {
    this.#columns = columns;
    const head = document.createElement('tr');
    for (const { title, kind } of columns) {
      const cell = document.createElement('th');
      cell.scope = 'col';
      cell.textContent = title;
      if (kind === NUMBER) cell.className = kind;
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
      for (const [column, { text, kind }] of this.#columns.entries()) {
        const cell = row.children[column];
        if (text && cell.textContent !== text(values)) cell.textContent = text(values);
        if (typeof kind === 'function') cell.className = kind(values);
      }
    }
  }

  #make(key, values) {
    const row = document.createElement('tr');
    for (const { kind, element } of this.#columns) {
      const cell = row.insertCell();
      if (typeof kind === 'string') cell.className = kind;
      if (element) cell.append(element(values));
    }
    this.#rows.set(key, row);
    return row;
  }
}

/** Says how it stands, once: a status that changes each second would be read aloud each second. */
function tell(text) {
  const status = byId('status');
  if (status.textContent === text) return;
  status.textContent = text;
  status.className = text === 'live' ? 'live' : '';
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
    tell(error.message);
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

const containers = new Table(
  'containers',
  'Containers',
  [
    { title: 'Name', text: ({ name }) => name },
    { title: 'Image', text: ({ image }) => image },
    { title: 'Status', kind: ({ state }) => `state ${state}`, text: ({ status }) => status },
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
    { title: 'Sent', kind: NUMBER, text: ({ bytesFromGuest }) => bytes(bytesFromGuest) },
    { title: 'Received', kind: NUMBER, text: ({ bytesToGuest }) => bytes(bytesToGuest) },
    { title: 'RTT', kind: NUMBER, text: ({ rttMs }) => duration(rttMs) },
    { title: 'Sent again', kind: NUMBER, text: ({ retransmits }) => String(retransmits ?? '') },
    { title: 'Age', kind: NUMBER, text: ({ ageMs }) => duration(ageMs) },
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
    { title: 'Times', kind: NUMBER, text: ({ count }) => String(count) },
    { title: 'Last', kind: NUMBER, text: ({ idleMs }) => `${duration(idleMs)} ago` },
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
    { title: 'Took', kind: NUMBER, text: ({ tookMs }) => duration(tookMs) },
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
    { title: 'Left', kind: NUMBER, text: ({ leftMs }) => duration(leftMs) },
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
    { title: 'Count', kind: NUMBER, text: ({ count }) => String(count) },
    { title: 'Median', kind: NUMBER, text: ({ p50Us }) => duration(p50Us / 1000) },
    { title: '99 %', kind: NUMBER, text: ({ p99Us }) => duration(p99Us / 1000) },
  ],
  'No folder of the host is mounted.',
);

const samples = [];
let before = new Map();

/** Bytes per second since the snapshot before: into the plot. */
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
  return sample;
}

/** What is too wide for the window is scrolled by the keyboard too: it takes the focus, and only then. */
function letScroll() {
  for (const section of document.querySelectorAll('main section')) {
    if (section.scrollWidth > section.clientWidth) section.tabIndex = 0;
    else if (section.id !== 'containers') section.removeAttribute('tabindex');
  }
}

/** The numbers at the top, by what they count. */
function showTiles(facts) {
  const tiles = byId('tiles');
  for (const [at, [name, value]] of Object.entries(facts).entries()) {
    const tile = tiles.children[at] ?? tiles.appendChild(document.createElement('div'));
    if (tile.children.length === 0) {
      tile.append(document.createElement('dt'), document.createElement('dd'));
      tile.firstChild.textContent = name;
    }
    tile.lastChild.textContent = value;
  }
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

/** Whom a flow goes to: the gateway's address is this host's. */
function otherSide(target, gateways) {
  if (target === '*') return 'several';
  const address = addressOf(target);
  return gateways.has(address) ? 'this host' : address;
}

function show(snapshot) {
  const { networks } = snapshot;
  const gateways = new Set(networks.map(({ gateway }) => gateway));
  const all = ofAll(networks, 'flows', ({ guest }) => addressOf(guest))
    .map((flow) => ({
      ...flow,
      key: `${flow.network} ${flow.protocol} ${flow.id}`,
      to: otherSide(flow.target, gateways),
    }))
    .sort((a, b) => b.bytesToGuest + b.bytesFromGuest - a.bytesToGuest - a.bytesFromGuest);
  const speed = measure(all, snapshot.timeMs);
  showTiles({
    'Containers running': snapshot.containers.filter(({ state }) => state === 'running').length,
    Flows: all.length,
    'To containers': `${bytes(speed.toGuests)}/s`,
    'From containers': `${bytes(speed.fromGuests)}/s`,
    Denied: networks.reduce((sum, { denied }) => sum + denied.reduce((of, { count }) => of + count, 0), 0),
  });
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
  tell(isPaused() ? 'paused' : 'live');
});

async function turn() {
  if (!isPaused())
    try {
      show(await (await ask('/api/snapshot')).json());
      letScroll();
      tell('live');
    } catch (error) {
      tell(`no answer: ${error.message}`);
    }
  setTimeout(turn, EVERY_MS);
}
await turn();
