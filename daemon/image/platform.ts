/** Platforms of images: `os/architecture[/variant]`, as containerd's platforms package reads and matches them. */
import { DrydockError } from '#common/errors';
import { hostArchitecture, hostOs } from './config-file.ts';

export interface Platform {
  os: string;
  architecture: string;
  variant?: string;
}

const OS_NAMES = new Set(['linux', 'darwin', 'windows', 'freebsd']);
/** Other names of architectures, as people and uname write them. */
const ARCHITECTURES: Record<string, { architecture: string; variant?: string }> = {
  x86_64: { architecture: 'amd64' },
  'x86-64': { architecture: 'amd64' },
  aarch64: { architecture: 'arm64' },
  i386: { architecture: '386' },
  armhf: { architecture: 'arm', variant: 'v7' },
  armel: { architecture: 'arm', variant: 'v6' },
};
const KNOWN = new Set(['amd64', 'arm64', '386', 'arm', 'ppc64le', 's390x', 'riscv64', 'mips64le', 'loong64']);

/** The platform of this machine. */
export function hostPlatform(): Platform {
  return { os: hostOs(), architecture: hostArchitecture() };
}

/** Parses `linux`, `arm64`, `linux/arm64` or `linux/arm/v7`. @throws DrydockError ERR_BAD_PARAMETER */
export function parsePlatform(text: string): Platform {
  const parts = text.toLowerCase().split('/');
  const invalid = (): DrydockError =>
    new DrydockError(
      'ERR_BAD_PARAMETER',
      `${JSON.stringify(text)}: unknown operating system or architecture: invalid argument`,
    );
  if (parts.length > 3 || parts.some((part) => !/^[a-z0-9_.-]+$/.test(part))) throw invalid();
  if (parts.length === 1 && OS_NAMES.has(parts[0]!))
    return { os: parts[0]!, architecture: hostArchitecture() };
  const [os, name, variant] =
    parts.length === 1 ? [hostOs(), parts[0]!] : (parts as [string, string, string?]);
  const canonical = ARCHITECTURES[name] ?? { architecture: name };
  if (parts.length === 1 && !KNOWN.has(canonical.architecture)) throw invalid();
  const chosen = variant ?? canonical.variant;
  return { os, architecture: canonical.architecture, ...(chosen !== undefined && { variant: chosen }) };
}

/** A test for the platforms of an index: those that run here, or exactly what was asked for. */
export function selectsPlatform(
  asked: Platform | undefined,
): (platform: { os?: unknown; architecture?: unknown; variant?: unknown }) => boolean {
  const want = asked ?? hostPlatform();
  return (platform) =>
    platform.os === want.os &&
    platform.architecture === want.architecture &&
    (want.variant === undefined || platform.variant === undefined || platform.variant === want.variant);
}
