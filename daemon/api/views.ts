/** What the live daemon adds to a container's record when it is shown. */
import type { Container } from '../container/container.ts';
import { etcPaths } from '../container/files.ts';
import type { LiveView, SecurityLabels } from '../container/inspect.ts';
import { mountLabel } from '../runtime/index.ts';
import type { JailReportRow } from '../runtime/runtime.ts';
import type { ApiContext } from './context.ts';

/** Gathers a container's live facts. `sizes` costs a walk over its files. */
export async function liveView(context: ApiContext, container: Container, sizes: boolean): Promise<LiveView> {
  const { networks, execs, containers, roots } = context;
  const folder = containers.folderOf(container.id);
  const paths = etcPaths(folder);
  return {
    networks: networks.settings(container.record),
    ports: networks.ports(container.id),
    execIds: execs.idsOf(container),
    paths: {
      resolv: paths['resolv.conf'],
      hostname: paths.hostname,
      hosts: paths.hosts,
      log: container.log ? containers.logPath(container.id) : '',
    },
    driver: roots.driver,
    places: roots.places(container.id),
    sizes: sizes ? await roots.sizes(container.id) : undefined,
  };
}

/** From the report, which says what is really in force; making that costs more than all else that is shown of a container. */
export function securityLabels({ containers }: ApiContext, { record }: Container): SecurityLabels {
  const given = (feature: string): string => {
    const row = report.find((one) => one.feature === feature);
    return row && row.got !== 'none' ? row.asked : '';
  };
  let report: JailReportRow[] = [];
  try {
    report = containers.report(record);
  } catch {
    // Its runtime is no longer there, or refuses it now: then it has none.
  }
  const process = given('SELinux');
  return { apparmor: given('AppArmor'), process, mount: process && mountLabel(process) };
}
