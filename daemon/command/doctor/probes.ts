/**
 * Everything the doctor looks at, in the order of its report. A part that knows more about a platform adds a line here: a function
 * that takes the machine and gives findings.
 */
import type { Progress } from '#common/progress';
import type { DaemonConfig } from '../../config-options.ts';
import { darwinFindings } from './darwin.ts';
import type { Finding, HostView } from './host.ts';
import { jailFindings } from './jail.ts';
import { linuxFindings } from './linux.ts';
import {
  configuration,
  diskFindings,
  dnsFindings,
  programFindings,
  proxyFindings,
  socketFindings,
} from './surroundings.ts';

type Probe = (host: HostView, config: DaemonConfig) => Finding[] | Promise<Finding[]>;

/** By platform; the others have none of their own. */
const PLATFORM_PROBES: Partial<Record<NodeJS.Platform, readonly Probe[]>> = {
  linux: [linuxFindings, jailFindings],
  darwin: [darwinFindings, jailFindings],
};

/** On every platform. */
const PROBES: readonly Probe[] = [diskFindings, dnsFindings, proxyFindings, socketFindings];

/** Looks at everything. @param progress told how many of the parts are done */
export async function examine(host: HostView, progress: Progress = () => {}): Promise<Finding[]> {
  const { config, findings } = configuration(host);
  const own = PLATFORM_PROBES[host.platform];
  const all = [...programFindings(host), ...findings];
  if (!own)
    all.push({
      part: 'program',
      name: 'platform',
      status: 'fail',
      text: `${host.platform} has no container runtime here`,
      fix: 'Run the daemon on Linux or macOS.',
    });
  const probes = [...(own ?? []), ...PROBES];
  for (const [done, probe] of probes.entries()) {
    progress('looking at this machine', done, probes.length);
    all.push(...(await probe(host, config)));
  }
  return all;
}
