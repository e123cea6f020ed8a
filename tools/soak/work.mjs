// What a busy machine asks of its engine in eight hours, as fast as it goes: a container run each minute, a command by exec every ten
// seconds, and so on. Each is done whenever it is the furthest behind, so that the work is a day's at every moment.
const HOURS = 8;

const KINDS = {
  'containers run and removed': {
    count: 480,
    async run(api, name) {
      const { Id } = await api.json('POST', `/containers/create?name=${name}`, {
        Image: 'drydock/host',
        Cmd: ['true'],
      });
      await api.bytes('POST', `/containers/${Id}/start`);
      await api.json('POST', `/containers/${Id}/wait`);
      await api.bytes('DELETE', `/containers/${Id}`);
    },
  },
  'commands by exec': {
    count: 2880,
    async run(api, _name, idle) {
      const wish = { Cmd: ['true'], AttachStdout: true, AttachStderr: true };
      const { Id } = await api.json('POST', `/containers/${idle}/exec`, wish);
      await api.drain('POST', `/exec/${Id}/start`, {});
    },
  },
  'containers restarted': {
    count: 240,
    run: (api, _name, idle) => api.bytes('POST', `/containers/${idle}/restart?t=0`),
  },
  'volumes made and removed': {
    count: 240,
    async run(api, name) {
      await api.json('POST', '/volumes/create', { Name: name });
      await api.bytes('DELETE', `/volumes/${name}`);
    },
  },
  'networks made and removed': {
    count: 120,
    async run(api, name) {
      const { Id } = await api.json('POST', '/networks/create', { Name: name });
      await api.bytes('DELETE', `/networks/${Id}`);
    },
  },
  'logs read': {
    count: 1440,
    run: (api, _name, idle) => api.drain('GET', `/containers/${idle}/logs?stdout=1&tail=100`),
  },
  'statistics read': {
    count: 1440,
    run: (api, _name, idle) => api.json('GET', `/containers/${idle}/stats?stream=false&one-shot=true`),
  },
  'lists of all containers': { count: 960, run: (api) => api.json('GET', '/containers/json?all=1') },
};

/** The work of one machine, over an API. */
export class Work {
  done = Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, 0]));
  #api;
  #idle;
  #serial = 0;
  #stopped = false;

  /** @param idle names of containers that may be restarted */
  constructor(api, idle) {
    this.#api = api;
    this.#idle = idle;
  }

  /** The hours that the work amounts to by now. */
  get hours() {
    return HOURS * Math.min(...Object.entries(KINDS).map(([kind, { count }]) => this.done[kind] / count));
  }

  /** Works until there was enough of it for so many hours, or until stop(). */
  async run(hours) {
    while (!this.#stopped && this.hours < hours) {
      const [kind, { run }] = Object.entries(KINDS).toSorted(
        ([a], [b]) => this.#share(a) - this.#share(b),
      )[0];
      this.done[kind]++;
      const serial = this.#serial++;
      await run(this.#api, `soak-work-${serial}`, this.#idle[serial % this.#idle.length]);
    }
  }

  stop() {
    this.#stopped = true;
  }

  #share(kind) {
    return this.done[kind] / KINDS[kind].count;
  }
}
