/** Counters as Prometheus reads them (text exposition format 0.0.4). */

/** Values that go down as well as up. */
const GAUGES: ReadonlySet<string> = new Set([
  'guests',
  'machines',
  'publications',
  'neighbours',
  'groups',
  'pings',
  'reassemblyBytes',
  'tcpFlows',
  'tcpBufferBytes',
  'udpMappings',
  'dns_cache_entries',
  'dns_pending',
]);

/** `egressDenied` and `dns_pending` become `drydock_net_egress_denied` and `drydock_net_dns_pending`. */
function metricName(counter: string): string {
  const snake = counter.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toLowerCase();
  return `drydock_net_${snake.replace(/[^a-z0-9_]/g, '_')}`;
}

/** The counters of one network. */
export function formatMetrics(network: string, counters: Readonly<Record<string, number>>): string {
  const label = network.replace(/[\\"\n]/g, (char) => (char === '\n' ? '\\n' : `\\${char}`));
  const lines: string[] = [];
  for (const [counter, value] of Object.entries(counters)) {
    const isGauge = GAUGES.has(counter);
    const name = isGauge ? metricName(counter) : `${metricName(counter)}_total`;
    lines.push(`# TYPE ${name} ${isGauge ? 'gauge' : 'counter'}`, `${name}{network="${label}"} ${value}`);
  }
  return `${lines.join('\n')}\n`;
}
