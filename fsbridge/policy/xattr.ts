/**
 * Which extended attributes a container has to do with. Tools ask for some on every file (`ls -l` for two): those that
 * the bridge doesn't carry are answered from memory, without a call to the host.
 */
import { EOPNOTSUPP } from '../wire/errno.ts';

/**
 * - `system.posix_acl_*`: access control lists are enforced by whoever opens the file, which on the host is the
 *   server; passing them on would show lists that don't hold, so the mount says that it has none.
 * - `security.selinux`, `security.SMACK64`, `security.ima`, `security.evm`: labels of the host's policy, which are not
 *   the container's to read or to set.
 */
const NOT_CARRIED = [
  'system.posix_acl_',
  'security.selinux',
  'security.SMACK64',
  'security.ima',
  'security.evm',
];

/** The answer to a request about an attribute that isn't carried, or undefined if the host is to be asked. */
export function answersXattr(attribute: string): number | undefined {
  if (attribute.startsWith('user.')) return undefined;
  for (const prefix of NOT_CARRIED) if (attribute.startsWith(prefix)) return -EOPNOTSUPP;
  return undefined;
}
