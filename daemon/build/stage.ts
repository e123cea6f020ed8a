/**
 * One stage of a build: every instruction makes an image of the one before, and an instruction that was done before on the
 * same image with the same inputs is taken from that time (the cache). What an instruction may do to files goes through
 * the image store: RUN by a container, COPY and ADD by a root of their own.
 */
import { randomUUID } from 'node:crypto';
import { DrydockError } from '#common/errors';
import { applyChange, isChange, parseCommand, parseJsonForm, setEnv } from '../image/changes.ts';
import type { ConfigFile } from '../image/config-file.ts';
import type { Lease } from '../image/library.ts';
import type { ImageRecord, LayerRecord } from '../image/records.ts';
import type { ImageConfig } from '../image/store.ts';
import type { BuildArguments } from './arguments.ts';
import { baseImage, contextNamed, type Found, folderBase } from './bases.ts';
import { cacheKey, findCached } from './cache.ts';
import { type CopyParts, type CopyRequest, folderLayer, prepareCopy } from './copy.ts';
import { dockerfileError, type Instruction, parseDockerfile } from './dockerfile.ts';
import { parseMountFlag } from './mounts.ts';
import type { BuildOptions, BuildParts, StepSink } from './options.ts';
import { checkFlags, isShown, scriptOf } from './plan.ts';
import { type MountFiles, mountsKey, type RunMountParts } from './run-mounts.ts';
import { runCommand } from './run-step.ts';
import type { StagePlan } from './stages.ts';
import { expandText, expandWord } from './words.ts';

/** docker gives it to every image that has none. */
const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const SCRATCH = 'scratch';

/** What the stages of one build share. */
export interface StageParts {
  options: BuildOptions;
  parts: BuildParts;
  /** The Dockerfile's escape character. */
  escape: string;
  /** ARGs before the first FROM. */
  globals: BuildArguments;
  lease: Lease;
  cacheSources: ImageRecord[];
  /** The classic builder's line for a step. */
  stepOf: (instruction: Instruction) => string;
  /** An earlier stage by name or number, once it is built. */
  stageBefore: (reference: string) => Promise<StageBuilder | undefined>;
}

/** Builds one stage. */
export class StageBuilder {
  readonly #plan: StagePlan;
  readonly #shared: StageParts;
  readonly #arguments: BuildArguments;
  /** The step under way, when it is shown. */
  #sink: StepSink | undefined;
  #shownSteps = 0;
  #layers: LayerRecord[] = [];
  #file: ConfigFile | undefined;
  #config: ImageConfig = {};
  #author = '';
  /** A CMD of this stage survives an ENTRYPOINT, an inherited one does not. */
  #hasOwnCmd = false;
  /** The image so far; undefined for an empty one. */
  imageId: string | undefined;

  constructor(plan: StagePlan, shared: StageParts) {
    this.#plan = plan;
    this.#shared = shared;
    this.#arguments = shared.globals.forStage();
  }

  get layers(): readonly LayerRecord[] {
    return this.#layers;
  }

  /** Does all steps. @throws DrydockError */
  async run(): Promise<void> {
    await this.#step(this.#plan.from, () => this.#from());
    for (const instruction of this.#plan.instructions)
      await this.#step(instruction, async () => {
        await this.#dispatch(instruction);
        if (this.imageId !== undefined) this.#say(` ---> ${short(this.imageId)}\n`);
      });
  }

  get #options(): BuildOptions {
    return this.#shared.options;
  }

  get #library(): BuildParts['images']['library'] {
    return this.#shared.parts.images.library;
  }

  #say(text: string): void {
    if (!this.#options.quiet) this.#shared.parts.progress({ stream: text });
  }

  async #step(instruction: Instruction, work: () => Promise<void>): Promise<void> {
    const { signal, observer } = this.#shared.parts;
    signal.throwIfAborted();
    this.#say(this.#shared.stepOf(instruction));
    if (observer && isShown(instruction)) {
      const { name, index, instructions } = this.#plan;
      this.#sink = observer.begin(instruction, {
        stage: name || (this.#options.mode === 'buildkit' && index > 0 ? `stage-${index}` : ''),
        index: ++this.#shownSteps,
        total: instructions.filter(isShown).length + 1,
      });
    }
    try {
      checkFlags(instruction);
      await work();
      this.#sink?.end();
    } catch (error) {
      this.#sink?.fail(error);
      throw error;
    } finally {
      this.#sink = undefined;
    }
  }

  async #dispatch(instruction: Instruction): Promise<void> {
    const { name, text } = instruction;
    switch (name) {
      case 'RUN':
        return this.#runStep(instruction);
      case 'COPY':
      case 'ADD':
        return this.#copyStep(instruction);
      case 'ARG': {
        const declared = this.#arguments.declare(text, (word) => this.#expand(word));
        return this.#commit(`ARG ${declared}`, this.#config);
      }
      case 'MAINTAINER':
        this.#author = text;
        return this.#commit(`MAINTAINER ${text}`, this.#config);
      case 'WORKDIR':
        return this.#workdirStep(instruction);
      default:
        return this.#changeStep(instruction);
    }
  }

  /** The variables that words may name: arguments, then the environment, which wins. */
  #expand(word: string): string {
    return expandWord(word, this.#arguments.variables(this.#config.Env ?? []), this.#shared.escape);
  }

  async #changeStep({ name, text }: Instruction): Promise<void> {
    if (!isChange(name)) throw new DrydockError('ERR_BAD_DOCKERFILE', `${name} is not supported here`);
    let config = applyChange(this.#config, name, text, (word) => this.#expand(word));
    if (name === 'CMD') this.#hasOwnCmd = true;
    if (name === 'ENTRYPOINT' && !this.#hasOwnCmd) config = { ...config, Cmd: null };
    await this.#commit(`${name} ${shown(name, text, config)}`, config);
  }

  async #workdirStep({ text }: Instruction): Promise<void> {
    const config = applyChange(this.#config, 'WORKDIR', text, (word) => this.#expand(word));
    await this.#commit(`WORKDIR ${config.WorkingDir}`, config, () =>
      folderLayer(this.#copyParts(), config.WorkingDir!),
    );
  }

  async #runStep(instruction: Instruction): Promise<void> {
    if (this.imageId === undefined && this.#layers.length === 0)
      throw new DrydockError(
        'ERR_BUILD',
        'RUN needs an image with a shell: FROM scratch has none. COPY something first',
      );
    const command = parseJsonForm(instruction.text) ?? parseCommand(scriptOf(instruction), this.#config);
    const args = this.#arguments.forRun(this.#config.Env ?? []);
    const shownArgs = args
      .filter(([, , isPredefined]) => !isPredefined)
      .map(([key, value]) => `${key}=${value}`);
    const createdBy = `${shownArgs.length > 0 ? `|${shownArgs.length} ${shownArgs.join(' ')} ` : ''}${command.join(' ')}`;
    const env = args.reduce((list, [key, value]) => setEnv(list, key, value), this.#config.Env ?? []);
    const flags = instruction.flags.map(([name, value]) => [name, this.#expand(value)] as const);
    const mounts = flags.flatMap(([name, value]) => (name === 'mount' ? [parseMountFlag(value)] : []));
    const network = flags.findLast(([name]) => name === 'network')?.[1];
    this.#checkEntitlements(network, flags.findLast(([name]) => name === 'security')?.[1]);
    const mountParts = this.#mountParts();
    const request = {
      imageId: this.imageId!,
      config: this.#config,
      command,
      env,
      network,
      mounts,
      mountParts,
    };
    const extra = flags.length === 0 ? '' : `${JSON.stringify(flags)} ${await mountsKey(mountParts, mounts)}`;
    await this.#commit(
      createdBy,
      this.#config,
      () =>
        runCommand(request, {
          parts: this.#shared.parts,
          options: this.#options,
          lease: this.#shared.lease,
          say: (text) => this.#say(text),
          output: (text) => {
            this.#sink?.log(text);
            this.#say(text);
          },
        }),
      { isComment: false, extra },
    );
  }

  #checkEntitlements(network: string | undefined, security: string | undefined): void {
    if (network !== undefined && !['default', 'none', 'host'].includes(network))
      throw new DrydockError('ERR_BAD_DOCKERFILE', `unsupported network mode ${JSON.stringify(network)}`);
    if (network === 'host' && !this.#options.entitlements.has('network.host'))
      throw new DrydockError('ERR_BUILD', 'network.host is not allowed: build with --allow network.host');
    if (security !== undefined && security !== 'insecure' && security !== 'sandbox')
      throw new DrydockError('ERR_BAD_DOCKERFILE', `security ${JSON.stringify(security)} is not valid`);
    if (security === 'insecure')
      throw new DrydockError('ERR_BUILD', 'security.insecure is not allowed by this daemon, for no build');
  }

  #mountParts(): RunMountParts {
    const { parts, options } = this.#shared;
    const namespace = options.buildArgs.get('BUILDKIT_CACHE_MOUNT_NS');
    return {
      images: parts.images,
      roots: parts.roots,
      cacheMounts: parts.cacheMounts,
      client: parts.client,
      secretsFolder: parts.secretsFolder,
      scratchPath: parts.scratchPath,
      filesOf: (from) => this.#filesOf(from),
      cacheNamespace: namespace ? `${namespace}/` : '',
      workdir: this.#config.WorkingDir ?? '',
      signal: parts.signal,
    };
  }

  async #copyStep(instruction: Instruction): Promise<void> {
    const request = await this.#copyRequest(instruction);
    const { chown, chmod } = request;
    const prepared = await prepareCopy(this.#copyParts(), request);
    try {
      const owner = chown === undefined ? '' : `--chown=${chown} `;
      const mode = chmod === undefined ? '' : `--chmod=${chmod} `;
      const description = `${instruction.name} ${owner}${mode}${prepared.hash} in ${request.written} `;
      const { link, parents, excludes } = request;
      const extra = link || parents || excludes.length > 0 ? JSON.stringify([link, parents, excludes]) : '';
      await this.#commit(description, this.#config, () => prepared.produce(), { isComment: true, extra });
    } finally {
      await prepared.dispose();
    }
  }

  async #copyRequest({
    name,
    flags,
    text,
    heredocs,
    line,
  }: Instruction): Promise<CopyRequest & { written: string }> {
    const { scratchPath, signal } = this.#shared.parts;
    const expanded = flags.map(([key, value]) => [key, this.#expand(value)] as const);
    const flag = (key: string): string | undefined => expanded.findLast(([each]) => each === key)?.[1];
    const words = (parseJsonForm(text) ?? text.split(/\s+/)).map((word) =>
      word.startsWith('<<') ? word : this.#expand(word),
    );
    if (words.length < 2)
      throw dockerfileError(
        line,
        `${name} requires at least two arguments, but only ${words.filter(Boolean).length} was provided`,
      );
    const destination = words.pop()!;
    if (words.length > 1 && !destination.endsWith('/'))
      throw new DrydockError(
        'ERR_BUILD',
        `When using ${name} with more than one source file, the destination must be a directory and end with a /`,
      );
    const workdir = this.#config.WorkingDir || '/';
    const variables = this.#arguments.variables(this.#config.Env ?? []);
    const files = await this.#filesOf(flag('from'));
    return {
      instruction: name as 'ADD' | 'COPY',
      sources: words,
      heredocs: heredocs.map((each) => ({
        ...each,
        content: each.expand ? expandText(each.content, variables, this.#shared.escape) : each.content,
      })),
      written: destination,
      destination: destination.startsWith('/') ? destination : `${workdir.replace(/\/$/, '')}/${destination}`,
      chown: flag('chown'),
      chmod: flag('chmod'),
      link: isTrue(flag('link')),
      parents: isTrue(flag('parents')),
      excludes: expanded.flatMap(([key, value]) => (key === 'exclude' ? [value] : [])),
      checksum: flag('checksum'),
      keepGitDir: isTrue(flag('keep-git-dir')),
      unpack: flag('unpack') === undefined ? undefined : isTrue(flag('unpack')),
      files,
      scratchPath: `${scratchPath}/${randomUUID()}`,
      signal,
    };
  }

  #copyParts(): CopyParts {
    const { images, roots } = this.#shared.parts;
    return { images, roots, layers: this.#layers, lease: this.#shared.lease };
  }

  /** The files that `from` names: a stage by name or number, what the client calls so, or an image. */
  async #filesOf(from: string | undefined): Promise<MountFiles> {
    if (from === undefined) return { folder: this.#options.contextPath };
    const named = contextNamed(this.#options, from);
    if (named?.kind === 'folder') return { folder: await named.fetch() };
    const stage = named ? undefined : await this.#shared.stageBefore(from);
    if (stage) return { layers: stage.layers };
    if (!named && (/^\d+$/.test(from) || from.toLowerCase() === this.#plan.name))
      throw new DrydockError('ERR_BUILD', `invalid from flag value ${from}: invalid stage index or name`);
    return { layers: (await this.#baseImage(named?.reference ?? from, '')).layers };
  }

  #baseImage(reference: string, platform: string): Promise<Found> {
    const sink = this.#sink;
    const { parts, options, lease } = this.#shared;
    return baseImage(reference, platform, {
      ...{ parts, options, lease },
      progress: sink ? (line) => sink.status(line) : parts.progress,
    });
  }

  async #from(): Promise<void> {
    const { from, base: written } = this.#plan;
    const globals = this.#shared.globals.globals();
    const expand = (word: string): string => expandWord(word, globals, this.#shared.escape);
    const base = expand(written);
    if (base === '')
      throw new DrydockError('ERR_BAD_DOCKERFILE', `base name (${written}) should not be blank`);
    const platform = new Map(from.flags).get('platform');
    await this.#begin(base, platform === undefined ? this.#options.platform : expand(platform));
    if (this.imageId !== undefined) this.#say(` ---> ${short(this.imageId)}\n`);
    else this.#say(' ---> \n');
    if (!this.#config.Env?.some((entry) => entry.startsWith('PATH=')))
      this.#config = { ...this.#config, Env: setEnv(this.#config.Env ?? [], 'PATH', DEFAULT_PATH) };
    await this.#triggers();
  }

  /** Takes over what FROM names. */
  async #begin(base: string, platform: string): Promise<void> {
    const named = contextNamed(this.#options, base);
    if (named?.kind === 'folder') {
      this.#layers = [await folderBase(this.#shared.parts, await named.fetch(), this.#shared.lease)];
      return;
    }
    const earlier = named ? undefined : await this.#shared.stageBefore(base);
    if (earlier) {
      this.imageId = earlier.imageId;
      this.#layers = earlier.#layers;
      this.#file = earlier.#file;
      this.#config = earlier.#config;
      // BuildKit's stages inherit arguments with everything else.
      if (this.#options.mode === 'buildkit') this.#arguments.inherit(earlier.#arguments);
      return;
    }
    if (!named && base === SCRATCH) return;
    const { id, layers } = await this.#baseImage(named?.reference ?? base, platform);
    this.imageId = id;
    this.#layers = [...layers];
    this.#file = this.#library.configOf(id);
    this.#config = this.#file.config;
  }

  /** ONBUILD instructions of the base image. */
  async #triggers(): Promise<void> {
    const triggers = this.#config.OnBuild ?? [];
    if (triggers.length === 0) return;
    this.#config = { ...this.#config, OnBuild: undefined };
    this.#say(`# Executing ${triggers.length} build trigger${triggers.length > 1 ? 's' : ''}\n`);
    for (const trigger of triggers) {
      const [instruction] = parseDockerfile(trigger).instructions;
      checkFlags(instruction!);
      await this.#dispatch(instruction!);
    }
    if (this.imageId !== undefined) this.#say(` ---> ${short(this.imageId)}\n`);
  }

  /**
   * Ends an instruction: takes its image from the cache, or makes it.
   * @param how.isComment whether the history shows the instruction as a comment, since no command ran
   * @param how.extra what else the step depends on, which the history does not show
   */
  async #commit(
    description: string,
    config: ImageConfig,
    produce?: () => Promise<LayerRecord | undefined>,
    { isComment, extra }: { isComment: boolean; extra: string } = { isComment: true, extra: '' },
  ): Promise<void> {
    const shell = (this.#config.Shell ?? ['/bin/sh', '-c']).join(' ');
    const createdBy = isComment
      ? `${shell} #(nop) ${/^(COPY|ADD) /.test(description) ? '' : ' '}${description}`
      : description;
    const author = this.#author;
    const { lease } = this.#shared;
    const base = { imageId: this.imageId, layers: this.#layers, file: this.#file };
    // Layers without an image are of a folder that the client calls FROM.
    const layers = base.imageId === undefined ? base.layers.map((layer) => layer.diffId) : [];
    const key = cacheKey(
      base.imageId,
      [createdBy, extra, ...layers].filter((part) => part !== '').join('\n'),
      config,
      author,
    );
    const query = { ...base, key, createdBy, config, author, lease };
    const isForced =
      this.#options.noCache ||
      this.#options.noCacheStages.includes(this.#plan.name || String(this.#plan.index));
    // The history of an image does not tell `extra`, so nothing else's image will do.
    const sources = extra === '' ? this.#shared.cacheSources : [];
    const cached = isForced ? undefined : await findCached(this.#library, query, sources);
    if (cached) {
      this.#say(' ---> Using cache\n');
      this.#sink?.cached();
    }
    const record =
      cached ??
      (await this.#library.derive({
        base: base.file,
        baseLayers: base.layers,
        layer: await produce?.(),
        config,
        step: { created_by: createdBy, comment: '', author },
        parentId: base.imageId,
        cacheKey: key,
        lease,
      }));
    for (const digest of this.#library.digestsOf(record)) lease.add(digest);
    this.imageId = record.id;
    this.#layers = record.layers;
    this.#file = this.#library.configOf(record.id);
    this.#config = config;
  }
}

/** The first digits of an image's id, as docker shows it. */
export const short = (id: string): string => id.slice('sha256:'.length, 'sha256:'.length + 12);

const isTrue = (flag: string | undefined): boolean => flag !== undefined && flag !== 'false' && flag !== '0';

/** The arguments as the history shows them: lists in Go's form. */
function shown(name: string, text: string, config: ImageConfig): string {
  const list =
    name === 'CMD'
      ? config.Cmd
      : name === 'ENTRYPOINT'
        ? config.Entrypoint
        : name === 'SHELL'
          ? config.Shell
          : undefined;
  return list ? `[${list.map((item) => JSON.stringify(item)).join(' ')}]` : text;
}
