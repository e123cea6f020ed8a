/** The eBPF device program of version 2, run by the kernel on a real cgroup2 hierarchy. */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, mkdirSync, openSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { attachDeviceProgram } from '#common/native/bpf';
import { DEVICE_RULES_ALWAYS, findHierarchies } from '../../daemon/runtime/linux/cgroup.ts';
import { deviceProgram } from '../../daemon/runtime/linux/device-program.ts';
import { deviceRules } from '../../daemon/runtime/linux/devices.ts';

let group: string;
beforeAll(() => {
  const hierarchies = findHierarchies(readFileSync('/proc/self/mountinfo', 'utf8'));
  const root = hierarchies.find(({ controllers }) => controllers === undefined)!.path;
  group = join(root, `drydock-test-${randomBytes(4).toString('hex')}`);
  mkdirSync(group);
});
afterAll(() => rmdirSync(group));

/** Runs a script in the group. */
function inGroup(script: string): string {
  const { stdout } = spawnSync('sh', ['-c', `echo $$ > ${group}/cgroup.procs; ${script}`], {
    encoding: 'utf8',
  });
  return stdout;
}

it('allows what its rules list and nothing else', () => {
  const probe = [
    'for d in null zero kmsg; do (exec 3</dev/$d) 2>/dev/null && echo read $d; done',
    '(exec 3>/dev/zero) 2>/dev/null && echo write zero',
    '(exec 3>/dev/null) 2>/dev/null && echo write null',
    'mknod /tmp/drydock-node-$$ c 1 11 && echo mknod; rm -f /tmp/drydock-node-$$',
  ].join('\n');
  expect(inGroup(probe)).toContain('read kmsg');
  const fd = openSync(group, 'r');
  const rules = [
    ...DEVICE_RULES_ALWAYS,
    ...deviceRules([
      { hostPath: '/dev/null', path: '/dev/null', access: 'rwm' },
      { hostPath: '/dev/zero', path: '/dev/zero', access: 'r' },
    ]),
  ];
  attachDeviceProgram(deviceProgram(rules), fd);
  closeSync(fd);
  expect(inGroup(probe)).toBe('read null\nread zero\nwrite null\nmknod\n');
});

it('without a rule allows nothing', () => {
  const fd = openSync(group, 'r');
  attachDeviceProgram(deviceProgram([]), fd);
  closeSync(fd);
  expect(inGroup('(exec 3</dev/null) 2>/dev/null || echo denied')).toBe('denied\n');
});
