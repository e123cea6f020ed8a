/** Runtimes: how containers are isolated. The rest of the daemon imports this and runtime.ts. */
export * from './defaults.ts';
export { parseSeccompProfile } from './linux/seccomp/profile.ts';
export { mountLabel } from './linux/security/selinux.ts';
export { createRuntime } from './platform.ts';
