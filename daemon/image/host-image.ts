/**
 * The image `drydock/host:latest`: a root file system made of this host's own programs, so that containers run with
 * no registry in reach. Node, a shell and the usual tools are picked with the libraries that they need; nothing of
 * the host's data, accounts or configuration goes along, save what programs need to start and to talk TLS.
 *
 * It is built once and again when the host's tools have changed, which a fingerprint in a label tells.
 */
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
} from 'node:fs';
import type { Clock } from '#common/clock';
import { DrydockError } from '#common/errors';
import type { Log } from '#common/log';
import type { Progress } from '#common/progress';
import { emitConfigFile, hostArchitecture, hostOs } from './config-file.ts';
import { type ElfNeeds, findLibraries, libraryFolders } from './elf.ts';
import { HostTree } from './host-tree.ts';
import type { Library } from './library.ts';
import type { Image } from './store.ts';

/** The image's name in familiar form. */
export const HOST_IMAGE = 'drydock/host:latest';
const HOST_IMAGE_NORMAL = `docker.io/${HOST_IMAGE}`;
const FINGERPRINT_LABEL = 'io.drydock.host.fingerprint';
/** Goes up when what is made of the same tools changes. */
const RECIPE = 2;
/** Between two reports of how much has been read. */
const PROGRESS_MS = 200;

const SEARCH_PATH = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];

/** Without these a container would not be of use: their absence is an error. */
const REQUIRED =
  'sh cat ls cp mv rm mkdir ln chmod chown touch echo env sleep true false test head tail sort wc grep sed awk find tar gzip';
const OPTIONAL =
  'bash dash [ arch b2sum base32 base64 basename chgrp chroot cksum comm csplit cut date dd df dir dircolors dirname ' +
  'du expand expr factor fmt fold groups hostid id install join link logname md5sum mkfifo mknod mktemp nice nl nohup ' +
  'nproc numfmt od paste pathchk pinky pr printenv printf ptx pwd readlink realpath rmdir seq sha1sum sha224sum ' +
  'sha256sum sha384sum sha512sum shred shuf split stat stdbuf stty sum sync tac tee timeout tr truncate tsort tty ' +
  'uname uniq unlink users vdir who whoami yes egrep fgrep gawk mawk xargs gunzip zcat bzip2 xz zstd cmp diff less more ' +
  'ed vi vim.tiny nano curl wget openssl ps top free kill pgrep pkill pidof uptime vmstat w watch ip ss ping ping6 ' +
  'tracepath nc netstat ifconfig hostname host dig nslookup getent ldd ldconfig iconv locale mount umount mountpoint ' +
  'findmnt lsblk dmesg flock getopt setsid setpriv su runuser nsenter unshare taskset chrt ionice prlimit script column ' +
  'hexdump rev logger lscpu blkid capsh getcap setcap getfattr setfattr useradd groupadd jq file strace git make socat';

/** Libraries that are opened by name at run time: name service modules, and what threads need to be cancelled. */
const OPENED_AT_RUN_TIME = /^(libnss_(files|dns|compat)|libgcc_s|libresolv)\.so\.\d+$/;

/** Files of the host that programs read to work at all. */
const SUPPORT_FILES = [
  '/etc/ld.so.cache',
  '/etc/ld.so.conf',
  '/etc/os-release',
  '/etc/protocols',
  '/etc/services',
  '/etc/ssl/openssl.cnf',
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/ssl/cert.pem',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/usr/share/zoneinfo/UTC',
  '/usr/share/zoneinfo/Etc/UTC',
  '/usr/share/misc/magic.mgc',
];
const TERMINALS =
  /\/(xterm|xterm-.*|linux|screen.*|tmux.*|vt100|vt102|vt220|ansi|dumb|rxvt.*|alacritty|foot)$/;

const PASSWD = `root:x:0:0:root:/root:/bin/SHELL
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:x:2:2:bin:/bin:/usr/sbin/nologin
mail:x:8:8:mail:/var/mail:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
node:x:1000:1000:node:/home/node:/bin/SHELL
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
`;
const GROUP =
  'root:x:0:\ndaemon:x:1:\nbin:x:2:\ntty:x:5:\ndisk:x:6:\nmail:x:8:\nutmp:x:43:\nwww-data:x:33:\nusers:x:100:\nnode:x:1000:\nnogroup:x:65534:\n';
const NSSWITCH =
  'passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n';
const PROFILE = `export PATH=${SEARCH_PATH.join(':')}\n[ "$(id -u)" = 0 ] && PS1='# ' || PS1='$ '\n`;

function hostImageError(reason: string): DrydockError {
  return new DrydockError('ERR_HOST_IMAGE', `cannot build the image ${HOST_IMAGE} from this host: ${reason}`);
}

function findTool(name: string): string | undefined {
  return SEARCH_PATH.map((folder) => `${folder}/${name}`).find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return !lstatSync(path).isDirectory();
    } catch {
      return false;
    }
  });
}

/** The interpreter that a script names, or undefined when the file is no script. */
function scriptInterpreter(path: string): string | undefined {
  const fd = openSync(path, 'r');
  try {
    const bytes = Buffer.alloc(256);
    const start = bytes.toString('latin1', 0, readSync(fd, bytes, 0, bytes.length, 0));
    return /^#!\s*(\S+)/.exec(start)?.[1];
  } finally {
    closeSync(fd);
  }
}

/** Picks programs with their libraries into a tree. */
class Picker {
  readonly tree = new HostTree();
  readonly #folders = libraryFolders();
  readonly #known = new Map<string, ElfNeeds | undefined>();

  /** Adds a program. @returns why it can't be, or undefined. */
  program(path: string): string | undefined {
    const probe = new HostTree();
    const real = probe.add(path);
    if (real === undefined) return `${path} is not there`;
    const interpreter = scriptInterpreter(real);
    // A script of another language would drag that language in.
    if (interpreter !== undefined && !/\/(ba|da)?sh$/.test(interpreter))
      return `${path} is a script of ${interpreter}`;
    const { paths, missing } = findLibraries(real, this.#folders, this.#known);
    if (missing.length > 0)
      return `${path} needs ${missing.join(', ')}, which ${missing.length === 1 ? 'is' : 'are'} not installed`;
    this.tree.add(path);
    for (const library of paths) this.tree.add(library);
    return undefined;
  }

  runTimeLibraries(): void {
    for (const folder of this.#folders) {
      if (!existsSync(folder)) continue;
      for (const name of readdirSync(folder))
        if (OPENED_AT_RUN_TIME.test(name)) this.tree.add(`${folder}/${name}`);
    }
  }
}

/** The tree of the image. Only looks at the host; reads no file but the heads of programs. @throws ERR_HOST_IMAGE */
export function pickHostTree(nodePath: string = process.execPath): HostTree {
  if (process.platform !== 'linux')
    throw hostImageError(
      'only Linux programs can be picked by their libraries. Load an image with docker load or docker import.',
    );
  const picker = new Picker();
  const { tree } = picker;
  const nodeProblem = picker.program(nodePath);
  if (nodeProblem !== undefined) throw hostImageError(`node: ${nodeProblem}.`);
  // A node outside of the usual folders (nvm, a tarball) is found by this link.
  if (findTool('node') === undefined || tree.add(findTool('node')!) === undefined)
    tree.symlink('/usr/local/bin/node', nodePath);
  for (const name of REQUIRED.split(' ')) {
    const path = findTool(name);
    if (path === undefined)
      throw hostImageError(
        `the tool ${JSON.stringify(name)} is not in ${SEARCH_PATH.join(':')}. Install it and start the daemon again.`,
      );
    const problem = picker.program(path);
    if (problem !== undefined) throw hostImageError(`${problem}.`);
  }
  for (const name of OPTIONAL.split(' ')) {
    const path = findTool(name);
    if (path !== undefined) picker.program(path);
  }
  picker.runTimeLibraries();
  for (const path of SUPPORT_FILES) tree.add(path);
  for (const folder of ['/lib/terminfo', '/usr/share/terminfo', '/etc/terminfo'])
    tree.addAll(folder, (path) => TERMINALS.test(path));
  for (const folder of ['/usr/lib/locale/C.utf8', '/usr/lib/locale/C.UTF-8', '/etc/ld.so.conf.d'])
    tree.addAll(folder);
  addOwnFiles(tree);
  return tree;
}

/** What is not taken from the host, for it would tell about the host. */
function addOwnFiles(tree: HostTree): void {
  const shell = findTool('bash') === undefined ? 'sh' : 'bash';
  for (const path of [
    '/dev',
    '/proc',
    '/sys',
    '/run',
    '/home',
    '/mnt',
    '/opt',
    '/srv',
    '/var',
    '/etc',
    '/usr',
    '/usr/local',
    '/usr/local/bin',
    '/usr/local/sbin',
    '/usr/local/lib',
    '/var/cache',
    '/var/lib',
    '/var/log',
    '/var/mail',
  ])
    tree.directory(path);
  for (const path of ['/tmp', '/var/tmp']) tree.directory(path, 0o1777);
  tree.directory('/root', 0o700);
  tree.directory('/home/node');
  tree.symlink('/var/run', '/run');
  tree.text('/etc/passwd', PASSWD.replaceAll('SHELL', shell));
  tree.text('/etc/group', GROUP);
  tree.text('/etc/shadow', 'root:*:19000:0:99999:7:::\nnode:*:19000:0:99999:7:::\n', 0o640);
  tree.text('/etc/nsswitch.conf', NSSWITCH);
  tree.text('/etc/profile', PROFILE);
  tree.text('/etc/shells', `/bin/sh\n/bin/${shell}\n`);
}

/**
 * Makes sure that the image exists and is of the tools that this host has now.
 * @throws DrydockError ERR_HOST_IMAGE, saying which tool is missing.
 */
export async function ensureHostImage(
  { library }: { library: Library },
  log: Log,
  clock: Clock,
  progress: Progress = () => {},
): Promise<Image> {
  const startedMs = clock.now();
  const tree = pickHostTree();
  const fingerprint = `${RECIPE}-${tree.fingerprint().slice(0, 32)}`;
  const existing = library.find(HOST_IMAGE);
  const isSame = existing?.config.Labels?.[FINGERPRINT_LABEL] === fingerprint;
  if (existing && isSame && (await library.isWhole(existing.id))) return existing;
  const image = await library.lease(async (lease) => {
    const files = tree.files();
    const tell = (): void =>
      progress(`building ${HOST_IMAGE} from this host's programs`, Number(files.read[0]), files.bytes);
    tell();
    const telling = setInterval(tell, PROGRESS_MS);
    const layer = await library.makeLayer(files, lease).finally(() => clearInterval(telling));
    const created = new Date(clock.wallMs()).toISOString();
    const comment = "built by Drydock from this host's own programs";
    const config = emitConfigFile({
      architecture: hostArchitecture(),
      os: hostOs(),
      created,
      comment,
      config: {
        Env: [`PATH=${SEARCH_PATH.join(':')}`],
        Cmd: [tree.has('/bin/bash') || tree.has('/usr/bin/bash') ? '/bin/bash' : '/bin/sh'],
        Labels: {
          'org.opencontainers.image.title': 'drydock/host',
          'org.opencontainers.image.description':
            "Node, a shell and the usual tools of this host, with their libraries; for containers without a registry. Made by Drydock at its start; no files of the host's users are in it.",
          [FINGERPRINT_LABEL]: fingerprint,
        },
      },
      history: [
        { created, created_by: `drydock: ${tree.size} files and folders of this host's userland`, comment },
      ],
      rootfs: { type: 'layers', diff_ids: [layer.diffId] },
    });
    const record = await library.addImage(config, [layer], lease);
    await library.setName(record.id, HOST_IMAGE_NORMAL);
    return library.find(record.id)!;
  });
  // Those of the host's former tools go when they have no name any more; containers keep their layers by themselves.
  for (const { id } of library.parts.records.list())
    if (id !== image.id && library.configOf(id).config.Labels?.[FINGERPRINT_LABEL] !== undefined)
      await library.dropUntagged(id);
  log.info(
    { image: HOST_IMAGE, files: tree.size, bytes: image.sizeBytes, ms: Math.round(clock.now() - startedMs) },
    'built the host image',
  );
  return image;
}
