/** What confines a container that asks for nothing: the report that create's warnings are made of, without a daemon. */
import { errorMessage } from '#common/errors';
import type { Finding, HostView } from './host.ts';

const PART = 'jail';

/** A row for each feature. */
export async function jailFindings(host: HostView): Promise<Finding[]> {
  try {
    return (await host.jail()).map(({ feature, asked, got, how, bypass }): Finding => {
      const text = `${asked === 'none' ? 'not asked for' : got}: ${how}${bypass ? ` (what gets round it: ${bypass})` : ''}`;
      if (got === 'full' || asked === 'none') return { part: PART, name: feature, status: 'ok', text };
      return {
        part: PART,
        name: feature,
        status: 'warn',
        text,
        fix: `Containers are started all the same; do not count on "${asked}".`,
      };
    });
  } catch (error) {
    return [
      {
        part: PART,
        name: 'default',
        status: 'fail',
        text: errorMessage(error),
        fix: 'Mend what is named, or give containers the options that are named.',
      },
    ];
  }
}
