/**
 * Events: what `docker events`, compose and orchestrators follow. Services publish; the bus keeps the latest few for
 * `since` and hands each event to every listener in order. Listeners must not throw and must not block.
 *
 * The message is that of the Engine API (GET /events), with the legacy fields `status`, `id` and `from` for containers
 * and images.
 */
import type { Clock } from '#common/clock';
import { EVENTS_KEPT_MAX } from '../limits.ts';
import { Stamps } from '../stamps.ts';

/** What an event is about. */
export type EventType = 'container' | 'image' | 'network' | 'volume' | 'daemon' | 'builder';

/** One event as on the wire. */
export interface EventMessage {
  status?: string;
  id?: string;
  from?: string;
  Type: EventType;
  Action: string;
  Actor: { ID: string; Attributes: Record<string, string> };
  scope: 'local';
  /** Seconds since the epoch. */
  time: number;
  timeNano: number;
}

/** Which events a client wants. */
export type EventPredicate = (event: EventMessage) => boolean;

/** Filters of GET /events by name; values of one name are alternatives. */
export type EventFilters = Map<string, string[]>;

/** Names that GET /events accepts as filters. */
export const EVENT_FILTER_NAMES: ReadonlySet<string> = new Set([
  'config',
  'container',
  'daemon',
  'event',
  'image',
  'label',
  'network',
  'node',
  'plugin',
  'scope',
  'secret',
  'service',
  'type',
  'volume',
]);

/** The stream of everything that happens. */
export class EventBus {
  readonly #stamps: Stamps;
  readonly #kept: EventMessage[] = [];
  readonly #listeners = new Set<(event: EventMessage) => void>();

  constructor(clock: Clock) {
    this.#stamps = new Stamps(clock);
  }

  /** Events since the start. */
  total = 0;

  /** How many listen. */
  get listeners(): number {
    return this.#listeners.size;
  }

  /** Publishes an event. `attributes` are copied. */
  emit(type: EventType, action: string, id: string, attributes: Record<string, string> = {}): void {
    const nano = this.#stamps.nano();
    const event: EventMessage = {
      Type: type,
      Action: action,
      Actor: { ID: id, Attributes: { ...attributes } },
      scope: 'local',
      time: Number(nano / 1_000_000_000n),
      timeNano: Number(nano),
    };
    if (type === 'container' || type === 'image') {
      event.status = action;
      event.id = id;
      if (type === 'container' && attributes.image !== undefined) event.from = attributes.image;
    }
    this.total++;
    this.#kept.push(event);
    if (this.#kept.length > EVENTS_KEPT_MAX) this.#kept.shift();
    for (const listener of [...this.#listeners]) listener(event);
  }

  /** Past events that are still kept, with a time in nanoseconds in [since, until]. */
  past(sinceNano: number, untilNano: number, wanted: EventPredicate): EventMessage[] {
    return this.#kept.filter((e) => e.timeNano >= sinceNano && e.timeNano <= untilNano && wanted(e));
  }

  /** Calls `listener` for each event from now on, until the returned function is called. */
  subscribe(listener: (event: EventMessage) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }
}

/** Compiles filters as moby's daemon/events/filter.go: names are all required, values of a name are alternatives. */
export function eventPredicate(filters: EventFilters): EventPredicate {
  const any = (name: string, test: (value: string) => boolean): boolean => {
    const values = filters.get(name);
    return values === undefined || values.some(test);
  };
  const actor = (event: EventMessage, type: EventType): boolean =>
    any(
      type,
      (value) =>
        event.Type === type &&
        (event.Actor.ID === value ||
          event.Actor.Attributes.name === value ||
          (event.Actor.ID.startsWith(value) && value.length > 0)),
    );
  return (event) =>
    any('type', (value) => event.Type === value) &&
    // `exec_create: cmd` matches the filter `exec_create`.
    any('event', (value) => event.Action === value || event.Action.startsWith(`${value}:`)) &&
    any('scope', (value) => event.scope === value) &&
    actor(event, 'container') &&
    actor(event, 'network') &&
    actor(event, 'volume') &&
    actor(event, 'daemon') &&
    any('image', (value) => imageMatches(event, value)) &&
    ['plugin', 'service', 'node', 'secret', 'config'].every((name) => !filters.has(name)) &&
    (filters.get('label') ?? []).every((value) => labelMatches(event.Actor.Attributes, value));
}

function imageMatches(event: EventMessage, value: string): boolean {
  const names = [event.Type === 'image' ? event.Actor.ID : '', event.Actor.Attributes.image ?? ''];
  if (event.Type === 'image') names.push(event.Actor.Attributes.name ?? '');
  return names.some((name) => name !== '' && (name === value || name.replace(/:[^/:]*$/, '') === value));
}

/** Whether labels satisfy `key` or `key=value`. */
export function labelMatches(labels: Record<string, string>, wanted: string): boolean {
  const at = wanted.indexOf('=');
  if (at < 0) return Object.hasOwn(labels, wanted);
  return labels[wanted.slice(0, at)] === wanted.slice(at + 1) && Object.hasOwn(labels, wanted.slice(0, at));
}
