/** What macOS gives. Nothing here has run on a Mac: the outputs that are looked for are from Apple's and FUSE-T's manuals. */
import type { Finding, HostView } from './host.ts';

const PART = 'macOS';
/** Where FUSE-T installs its server, as fsbridge/channel/fuse-t.ts has it. */
const FUSE_T = ['/usr/local/bin/go-nfsv4', '/Library/Application Support/fuse-t/bin/go-nfsv4'];

/** All checks of macOS. */
export function darwinFindings(host: HostView): Finding[] {
  const fuseT = FUSE_T.find((path) => host.exists(path));
  const version = host.run('sw_vers', ['-productVersion'])?.trim();
  return [
    version === undefined
      ? {
          part: PART,
          name: 'version',
          status: 'warn',
          text: 'sw_vers does not answer',
          fix: 'Add /usr/bin to PATH.',
        }
      : { part: PART, name: 'version', status: 'ok', text: version },
    integrity(host),
    fuseT !== undefined
      ? { part: PART, name: 'FUSE-T', status: 'ok', text: `${fuseT} is there` }
      : {
          part: PART,
          name: 'FUSE-T',
          status: 'warn',
          text: 'not installed: bind mounts are not to be had',
          fix: 'Run: brew install --cask fuse-t',
        },
  ];
}

/** csrutil(8): "System Integrity Protection status: enabled." It is fine either way, but a report must say it. */
function integrity(host: HostView): Finding {
  const state = /status:\s*(\w+)/.exec(host.run('csrutil', ['status']) ?? '')?.[1];
  if (state === undefined)
    return {
      part: PART,
      name: 'SIP',
      status: 'warn',
      text: 'csrutil does not tell',
      fix: 'Add /usr/bin to PATH.',
    };
  return { part: PART, name: 'SIP', status: 'ok', text: `System Integrity Protection is ${state}` };
}
