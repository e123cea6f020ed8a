/** SELinux labels of jails (`user:role:type:level`). Pure. */
import { DrydockError } from '#common/errors';
import type { JailMount } from '../../runtime.ts';

const PARTS = ['user', 'role', 'type', 'level'] as const;

/** File systems that are made for a jail, and whose files can be labelled as a whole. */
const LABELLED_KINDS: ReadonlySet<JailMount['kind']> = new Set(['tmpfs', 'devpts']);

/** The container label with some parts (`type:spc_t`) replaced. @throws DrydockError ERR_BAD_PARAMETER */
export function selinuxLabel(base: string, parts: string[]): string {
  // The level has colons of its own.
  const [user = '', role = '', type = '', ...level] = base.split(':');
  const label: Record<string, string> = { user, role, type, level: level.join(':') };
  for (const part of parts) {
    const [, name = '', value = ''] = /^(\w+):(.+)$/.exec(part) ?? [];
    if (!(name in label))
      throw new DrydockError(
        'ERR_BAD_PARAMETER',
        `invalid --security-opt label=${part}: it is disable, or one of ${PARTS.join(':, ')}: with a value`,
      );
    label[name] = value;
  }
  return PARTS.map((name) => label[name]).join(':');
}

/** The label of files that a program with `label` may use. */
export function mountLabel(label: string): string {
  const [user, , , ...level] = label.split(':');
  return [user, 'object_r', 'container_file_t', ...level].join(':');
}

/** The mounts with the label that a jail's own file systems have: the file type of containers, at the program's level. */
export function labelMounts(mounts: JailMount[], label: string | undefined): JailMount[] {
  if (label === undefined) return mounts;
  const option = `context=${mountLabel(label)}`;
  return mounts.map((mount) =>
    LABELLED_KINDS.has(mount.kind) ? { ...mount, options: [...mount.options, option] } : mount,
  );
}
