/** What the live daemon adds to a container's record when it is shown. */
import type { Container } from '../container/container.ts';
import { etcPaths } from '../container/files.ts';
import type { LiveView } from '../container/inspect.ts';
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
    sizes: sizes ? await roots.sizes(container.id) : undefined,
  };
}
