/** What the doctor sees of the machine. Tests give a machine of their own making. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statfsSync } from 'node:fs';
import { request } from 'node:http';
import { homedir } from 'node:os';
import { dirname } from 'node:path';
import type { JailReportRow } from '../../runtime/runtime.ts';

/** Result of one check. */
export interface Finding {
  /** Heading that it stands under. */
  part: string;
  name: string;
  status: 'ok' | 'warn' | 'fail';
  /** What was found, in a line. */
  text: string;
  /** What to do; with warn and fail. */
  fix?: string;
}

/** Room of a file system. */
export interface Room {
  freeBytes: number;
  /** 0 to 1; 1 where the file system does not count them. */
  freeInodesShare: number;
}

/** Who answers on a socket. */
export interface EngineFacts {
  name: string;
  version: string;
}

/** A machine to look at. */
export interface HostView {
  platform: NodeJS.Platform;
  nodeVersion: string;
  uid: number;
  home: string;
  env: Readonly<Record<string, string | undefined>>;
  /** A file's text, or undefined when it cannot be read. */
  read(path: string): string | undefined;
  exists(path: string): boolean;
  /** Names in a folder; none when there is no such folder. */
  list(path: string): string[];
  /** Standard output of a program that ended with 0. */
  run(program: string, args: string[]): string | undefined;
  /** Room where `path` is or would be. */
  room(path: string): Room | undefined;
  /** What confines a container that asks for nothing. */
  jail(): Promise<JailReportRow[]>;
  /** Which engine answers on a unix socket. */
  engine(socketPath: string): Promise<EngineFacts | undefined>;
}

/** How long a program or an engine may take to answer. */
const ANSWER_MS_MAX = 2000;

/** GETs JSON from a unix socket, or undefined when nobody answers in time. */
export function getJson(socketPath: string, path: string): Promise<unknown> {
  return new Promise((resolve) => {
    const none = (): void => resolve(undefined);
    const outgoing = request({ socketPath, path, timeout: ANSWER_MS_MAX }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('error', none);
      response.on('end', () => {
        try {
          resolve(JSON.parse(Buffer.concat(chunks).toString()));
        } catch {
          none();
        }
      });
    });
    outgoing.on('timeout', () => outgoing.destroy());
    outgoing.on('error', none);
    outgoing.end();
  });
}

/** Which engine answers on a unix socket, or undefined. */
export async function getEngine(socketPath: string): Promise<EngineFacts | undefined> {
  const found = (await getJson(socketPath, '/version')) as
    | { Version?: string; Platform?: { Name?: string }; Components?: { Name?: string }[] }
    | undefined;
  if (found?.Version === undefined) return undefined;
  return { name: found.Platform?.Name || found.Components?.[0]?.Name || 'an engine', version: found.Version };
}

function room(path: string): Room | undefined {
  let folder = path;
  while (!existsSync(folder) && folder !== dirname(folder)) folder = dirname(folder);
  try {
    const { bavail, bsize, ffree, files } = statfsSync(folder);
    return { freeBytes: bavail * bsize, freeInodesShare: files > 0 ? ffree / files : 1 };
  } catch {
    return undefined;
  }
}

/** This machine. */
export function thisHost(): HostView {
  return {
    platform: process.platform,
    nodeVersion: process.version,
    uid: process.getuid?.() ?? -1,
    home: homedir(),
    env: process.env,
    read(path) {
      try {
        return readFileSync(path, 'utf8');
      } catch {
        return undefined;
      }
    },
    exists: existsSync,
    list(path) {
      try {
        return readdirSync(path);
      } catch {
        return [];
      }
    },
    run(program, args) {
      const { status, stdout } = spawnSync(program, args, { encoding: 'utf8', timeout: ANSWER_MS_MAX });
      return status === 0 ? stdout : undefined;
    },
    room,
    jail: async () => (await import('../../runtime/platform.ts')).defaultReport(),
    engine: getEngine,
  };
}
