/** Numbers for people. */

/** @param {number} count of bytes @returns {string} as `1.5 MB` */
export function bytes(count) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = count;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${value < 10 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** @param {number | undefined | null} ms @returns {string} as `40 µs`, `1.3 ms`, `12 s`, `4 min`; nothing for what is not known */
export function duration(ms) {
  if (ms === undefined || ms === null) return '';
  if (ms < 0.9995) return ms === 0 ? '0 ms' : `${Math.max(1, Math.round(ms * 1000))} µs`;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 120_000) return `${Math.round(ms / 1000)} s`;
  return ms < 7_200_000 ? `${Math.round(ms / 60_000)} min` : `${Math.round(ms / 3_600_000)} h`;
}

/** The address of `address:port`. */
export function addressOf(endpoint) {
  return endpoint.replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
}
