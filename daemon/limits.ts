/** The daemon's bounds. Each has a defined answer when it is reached. */

/** Largest JSON request body; above it the answer is 413. */
export const JSON_BODY_BYTES_MAX: number = 8 * 1024 * 1024;
/** Bytes of JSON bodies that are being received at once, of all clients; above it the answer is 503. */
export const BODIES_BYTES_MAX: number = 64 * 1024 * 1024;
/** Largest message that a WebSocket's client may send; above it the connection is closed with 1009. */
export const WEBSOCKET_MESSAGE_BYTES_MAX: number = 1024 * 1024;
/** Events kept for `docker events --since`, as in dockerd. */
export const EVENTS_KEPT_MAX = 256;
/** Events that wait for a client that does not read them; above it its connection is closed. */
export const EVENTS_WAITING_MAX = 4096;
/** A log line is cut into parts of this many bytes, as dockerd's copier does. */
export const LOG_LINE_BYTES_MAX: number = 16 * 1024;
/** Log bytes waiting for the disk before a container's output is paused. */
export const LOG_PENDING_BYTES_MAX: number = 1024 * 1024;
/** Default of `docker stop --time`. */
export const STOP_TIMEOUT_S = 10;
/** Output of a process that has ended is awaited this long when others still hold its pipes. */
export const EXEC_OUTPUT_GRACE_MS = 2000;
/** How long a killed process may take to be reaped before the daemon says that it is stuck. */
export const KILL_WAIT_MS = 10_000;
/** How long all containers together may take to stop when the daemon ends (dockerd's --shutdown-timeout). */
export const SHUTDOWN_TIMEOUT_S = 15;
/** File systems below a host folder that is mounted read-only without them: each takes a file server. */
export const SUBMOUNTS_MAX = 32;
/** Longest container name. */
export const NAME_LENGTH_MAX = 255;
/** Shortest memory limit that dockerd accepts. */
export const MEMORY_BYTES_MIN: number = 6 * 1024 * 1024;
/** Finished exec instances are forgotten after this time, so that clients can still read their exit code. */
export const EXEC_KEPT_MS: number = 5 * 60_000;
/** Interval between two samples of `docker stats`. */
export const STATS_INTERVAL_MS = 1000;
/** Requests that are under way when the daemon ends get this long. */
export const API_GRACE_MS = 1000;
/** How long a resize waits for its exec to start, as in dockerd. */
export const EXEC_BEGIN_WAIT_MS = 10_000;
/** Results of a healthcheck that inspect shows, and bytes of output of each. */
export const HEALTH_LOG_MAX = 5;
export const HEALTH_OUTPUT_BYTES_MAX = 4096;
/** Connections at once through the proxy of a container without a network of its own; above it they are closed. */
export const PROXY_CONNECTIONS_MAX = 1024;
/** How long a client of that proxy may take to say where it wants to go. */
export const PROXY_GREETING_MS_MAX = 10_000;
