/** Why a port cannot be published, in people's words. */
import { DrydockError } from '#common/errors';

/** Docker's words for the reason, and ours for the remedy. */
export function publishError(error: string, endpoint: string): DrydockError {
  switch (error) {
    case 'EADDRINUSE':
      return new DrydockError('ERR_PORT_IN_USE', `Bind for ${endpoint} failed: port is already allocated`);
    case 'EACCES':
      return new DrydockError(
        'ERR_PORT_PRIVILEGED',
        `Bind for ${endpoint} failed: permission denied. Publish a host port of 1024 or more, run the daemon as ` +
          'root, or lower net.ipv4.ip_unprivileged_port_start.',
      );
    case 'EADDRNOTAVAIL':
      return new DrydockError(
        'ERR_ADDRESS_NOT_AVAILABLE',
        `Bind for ${endpoint} failed: cannot assign requested address. No interface of this host has it; ` +
          '`ip address` lists those there are.',
      );
    default:
      return new DrydockError('ERR_PUBLISH_FAILED', `Bind for ${endpoint} failed: ${error}`);
  }
}
