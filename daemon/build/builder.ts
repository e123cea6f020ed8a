/**
 * The classic builder: every instruction makes an image of the one before, and an instruction that was done before on
 * the same image with the same inputs is taken from that time (the cache). What an instruction may do to files goes
 * through the image store: RUN by a container, COPY and ADD by a root of their own.
 */
import { randomUUID } from 'node:crypto';
import { DrydockError } from '#common/errors';
import { applyChange, isChange, parseCommand, parseJsonForm, setEnv } from '../image/changes.ts';
import type { ConfigFile } from '../image/config-file.ts';
import type { Images } from '../image/images.ts';
import type { Lease } from '../image/library.ts';
import { hostPlatform, parsePlatform, selectsPlatform } from '../image/platform.ts';
import type { ImageRecord, LayerRecord } from '../image/records.ts';
import { formatFamiliar, formatNormal, parseReference, parseTagged } from '../image/reference.ts';
import type { Credentials } from '../image/registry/auth.ts';
import type { Roots } from '../image/roots.ts';
import type { ImageConfig, Progress } from '../image/store.ts';
import { BuildArguments } from './arguments.ts';
import { cacheKey, findCached } from './cache.ts';
import { type CopyParts, type CopyRequest, folderLayer, prepareCopy } from './copy.ts';
import { type Dockerfile, dockerfileError, type Instruction, parseDockerfile } from './dockerfile.ts';
import { checkFlags, scriptOf, selectInstructions } from './plan.ts';
import type { StepRunner } from './runner.ts';
import { expandText, expandWord } from './words.ts';

/** docker gives it to every image that has none. */
const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const SCRATCH = 'scratch';

/** What a client wishes. */
export interface BuildOptions {
  dockerfile: string;
  /** The context, unpacked. */
  contextPath: string;
  tags: string[];
  target: string;
  buildArgs: Map<string, string | undefined>;
  labels: Record<string, string>;
  noCache: boolean;
  pull: boolean;
  cacheFrom: string[];
  platform: string;
  /** Remove the containers of RUN that have succeeded, and also those that have failed. */
  removeContainers: boolean;
  forceRemove: boolean;
  quiet: boolean;
}

/** What a build works with. */
export interface BuildParts {
  images: Images;
  roots: Roots;
  runner: StepRunner;
  /** A folder for files of this build. */
  scratchPath: string;
  credentialsFor: CredentialsFor;
  progress: (line: Progress) => void;
  /** Told of steps, by a client that shows them in its own way. */
  observer?: BuildObserver;
  signal: AbortSignal;
}

/** The client's login at a registry. */
export type CredentialsFor = (domain: string) => Credentials | undefined | Promise<Credentials | undefined>;

/** Hears which step is under way. A step that fails is not ended: run() throws. */
export interface BuildObserver {
  /** `index` counts from 0. */
  begin(instruction: Instruction, index: number, total: number): void;
  /** The step under way was taken from the cache. */
  cached(): void;
  end(): void;
}

/** A failed RUN: the client ends with the command's exit code. */
export class BuildRunError extends DrydockError {
  readonly command: readonly string[];
  readonly exitCode: number;
  constructor(command: readonly string[], exitCode: number) {
    super('ERR_BUILD_RUN', `The command '${command.join(' ')}' returned a non-zero code: ${exitCode}`);
    this.command = command;
    this.exitCode = exitCode;
  }
}

/** A stage of a build, at the point that it has reached. */
interface Stage {
  name: string;
  index: number;
  imageId: string | undefined;
  layers: LayerRecord[];
  file: ConfigFile | undefined;
  config: ImageConfig;
  author: string;
  /** A CMD of this stage survives an ENTRYPOINT, an inherited one does not. */
  hasOwnCmd: boolean;
}

/** Builds one Dockerfile. */
export class Builder {
  readonly #options: BuildOptions;
  readonly #parts: BuildParts;
  readonly #stages: Stage[] = [];
  readonly #arguments: BuildArguments;
  #dockerfile!: Dockerfile;
  #lease!: Lease;
  #cacheSources: ImageRecord[] = [];

  constructor(options: BuildOptions, parts: BuildParts) {
    this.#options = options;
    this.#parts = parts;
    this.#arguments = new BuildArguments(options.buildArgs);
  }

  /** Builds. @returns the image's id. @throws DrydockError; steps that were done stay as cache */
  async run(): Promise<string> {
    this.#dockerfile = parseDockerfile(this.#options.dockerfile);
    const names = this.#options.tags.map(parseTagged);
    const { target, labels } = this.#options;
    const instructions = selectInstructions(this.#dockerfile.instructions, target, labels);
    const { library } = this.#parts.images;
    return library.lease(async (lease) => {
      this.#lease = lease;
      this.#cacheSources = this.#options.cacheFrom.flatMap((reference) => {
        const image = library.find(reference);
        return image ? [library.parts.records.get(image.id)!] : [];
      });
      for (const [index, instruction] of instructions.entries()) {
        this.#parts.signal.throwIfAborted();
        this.#say(`Step ${index + 1}/${instructions.length} : ${instruction.original}\n`);
        this.#parts.observer?.begin(instruction, index, instructions.length);
        await this.#step(instruction);
        this.#parts.observer?.end();
      }
      const stage = this.#stages.at(-1)!;
      const id = stage.imageId;
      if (id === undefined)
        throw new DrydockError('ERR_BUILD', 'No image was generated. Is your Dockerfile empty?');
      const unused = this.#arguments.unused();
      if (unused.length > 0)
        this.#say(`[Warning] One or more build-args [${unused.join(' ')}] were not consumed\n`);
      this.#parts.progress({ aux: { ID: id } });
      if (this.#options.quiet) this.#parts.progress({ stream: `${id}\n` });
      this.#say(`Successfully built ${short(id)}\n`);
      for (const name of names) {
        await library.setName(id, formatNormal(name));
        library.emit('tag', id, formatFamiliar(name));
        this.#say(`Successfully tagged ${formatFamiliar(name)}\n`);
      }
      return id;
    });
  }

  #say(text: string): void {
    if (!this.#options.quiet) this.#parts.progress({ stream: text });
  }

  async #step(instruction: Instruction): Promise<void> {
    const { name } = instruction;
    checkFlags(instruction);
    if (name === 'ARG' && this.#stages.length === 0) {
      this.#arguments.declareGlobal(instruction.text, (word) => this.#expand(word));
      return;
    }
    if (name === 'FROM') {
      await this.#from(instruction);
      return;
    }
    await this.#dispatch(instruction);
    const { imageId } = this.#stages.at(-1)!;
    if (imageId !== undefined) this.#say(` ---> ${short(imageId)}\n`);
  }

  async #dispatch(instruction: Instruction): Promise<void> {
    const stage = this.#stages.at(-1)!;
    const { name, text } = instruction;
    switch (name) {
      case 'RUN':
        return this.#runStep(stage, instruction);
      case 'COPY':
      case 'ADD':
        return this.#copyStep(stage, instruction);
      case 'ARG': {
        const declared = this.#arguments.declare(text, (word) => this.#expand(word));
        return this.#commit(stage, `ARG ${declared}`, stage.config);
      }
      case 'MAINTAINER':
        stage.author = text;
        return this.#commit(stage, `MAINTAINER ${text}`, stage.config);
      case 'WORKDIR':
        return this.#workdirStep(stage, instruction);
      default:
        return this.#changeStep(stage, instruction);
    }
  }

  /** The variables that words may name: arguments, then the environment, which wins. */
  #expand(word: string): string {
    const stage = this.#stages.at(-1);
    return expandWord(word, this.#arguments.variables(stage?.config.Env ?? []), this.#dockerfile.escape);
  }

  async #changeStep(stage: Stage, { name, text }: Instruction): Promise<void> {
    if (!isChange(name)) throw new DrydockError('ERR_BAD_DOCKERFILE', `${name} is not supported here`);
    let config = applyChange(stage.config, name, text, (word) => this.#expand(word));
    if (name === 'CMD') stage.hasOwnCmd = true;
    if (name === 'ENTRYPOINT' && !stage.hasOwnCmd) config = { ...config, Cmd: null };
    await this.#commit(stage, `${name} ${shown(name, text, config)}`, config);
  }

  async #workdirStep(stage: Stage, { text }: Instruction): Promise<void> {
    const config = applyChange(stage.config, 'WORKDIR', text, (word) => this.#expand(word));
    await this.#commit(stage, `WORKDIR ${config.WorkingDir}`, config, () =>
      folderLayer(this.#copyParts(stage), config.WorkingDir!),
    );
  }

  async #runStep(stage: Stage, instruction: Instruction): Promise<void> {
    if (stage.imageId === undefined && stage.layers.length === 0)
      throw new DrydockError(
        'ERR_BUILD',
        'RUN needs an image with a shell: FROM scratch has none. COPY something first',
      );
    const { runner, images } = this.#parts;
    const command = parseJsonForm(instruction.text) ?? parseCommand(scriptOf(instruction), stage.config);
    const args = this.#arguments.forRun(stage.config.Env ?? []);
    const shownArgs = args
      .filter(([, , isPredefined]) => !isPredefined)
      .map(([key, value]) => `${key}=${value}`);
    const createdBy = `${shownArgs.length > 0 ? `|${shownArgs.length} ${shownArgs.join(' ')} ` : ''}${command.join(' ')}`;
    const env = args.reduce((list, [key, value]) => setEnv(list, key, value), stage.config.Env ?? []);
    await this.#commit(
      stage,
      createdBy,
      stage.config,
      async () => {
        const imageId = stage.imageId!;
        const running = await runner.start(
          { imageId, config: stage.config, command, env, signal: this.#parts.signal },
          (output) => this.#say(output),
        );
        this.#say(` ---> Running in ${running.containerId.slice(0, 12)}\n`);
        let mustRemove = this.#options.forceRemove;
        try {
          const exitCode = await running.exited;
          if (exitCode !== 0) throw new BuildRunError(command, exitCode);
          const layer = await images.library.addLayer(
            this.#parts.roots.pack(running.containerId),
            this.#lease,
          );
          mustRemove ||= this.#options.removeContainers;
          return layer;
        } finally {
          // A failed container stays for a look into it, unless its client has gone.
          if (mustRemove || this.#parts.signal.aborted) {
            await running.remove();
            this.#say(` ---> Removed intermediate container ${running.containerId.slice(0, 12)}\n`);
          }
        }
      },
      false,
    );
  }

  async #copyStep(stage: Stage, instruction: Instruction): Promise<void> {
    const { scratchPath, signal } = this.#parts;
    const flags = new Map(instruction.flags.map(([key, value]) => [key, this.#expand(value)]));
    const words = parseJsonForm(instruction.text) ?? instruction.text.split(/\s+/);
    const expanded = words.map((word) => (word.startsWith('<<') ? word : this.#expand(word)));
    if (expanded.length < 2)
      throw dockerfileError(
        instruction.line,
        `${instruction.name} requires at least two arguments, but only ${expanded.filter(Boolean).length} was provided`,
      );
    const destination = expanded.pop()!;
    if (expanded.length > 1 && !destination.endsWith('/'))
      throw new DrydockError(
        'ERR_BUILD',
        `When using ${instruction.name} with more than one source file, the destination must be a directory and end with a /`,
      );
    const workdir = stage.config.WorkingDir || '/';
    const heredocs = instruction.heredocs.map((each) => ({
      ...each,
      content: each.expand
        ? expandText(each.content, this.#arguments.variables(stage.config.Env ?? []), this.#dockerfile.escape)
        : each.content,
    }));
    const request: CopyRequest = {
      instruction: instruction.name as 'ADD' | 'COPY',
      sources: expanded,
      heredocs,
      destination: destination.startsWith('/') ? destination : `${workdir.replace(/\/$/, '')}/${destination}`,
      chown: flags.get('chown'),
      chmod: flags.get('chmod'),
      contextPath: this.#options.contextPath,
      from: await this.#copyFrom(flags.get('from')),
      scratchPath: `${scratchPath}/${randomUUID()}`,
      signal,
    };
    const prepared = await prepareCopy(this.#copyParts(stage), request);
    try {
      const owner = request.chown === undefined ? '' : `--chown=${request.chown} `;
      const mode = request.chmod === undefined ? '' : `--chmod=${request.chmod} `;
      const description = `${instruction.name} ${owner}${mode}${prepared.hash} in ${destination} `;
      await this.#commit(stage, description, stage.config, () => prepared.produce());
    } finally {
      await prepared.dispose();
    }
  }

  #copyParts({ layers }: Stage): CopyParts {
    const { images, roots } = this.#parts;
    return { images, roots, layers, lease: this.#lease };
  }

  /** The layers that COPY --from reads: those of a stage by name or number, or of an image. */
  async #copyFrom(from: string | undefined): Promise<LayerRecord[] | undefined> {
    if (from === undefined) return undefined;
    const current = this.#stages.at(-1)!;
    const stage = this.#stages.find(
      (each) =>
        each !== current && (each.name.toLowerCase() === from.toLowerCase() || String(each.index) === from),
    );
    if (stage) return stage.layers;
    if (/^\d+$/.test(from) || from.toLowerCase() === current.name.toLowerCase())
      throw new DrydockError('ERR_BUILD', `invalid from flag value ${from}: invalid stage index or name`);
    return (await this.#baseImage(from, '')).layers;
  }

  async #from(instruction: Instruction): Promise<void> {
    const match = /^(\S+)(?:\s+AS\s+(\S+))?$/i.exec(instruction.text);
    if (!match) throw dockerfileError(instruction.line, 'FROM requires either one or three arguments');
    const globals = this.#arguments.globals();
    const expand = (word: string): string => expandWord(word, globals, this.#dockerfile.escape);
    const base = expand(match[1]!);
    if (base === '')
      throw new DrydockError('ERR_BAD_DOCKERFILE', `base name (${match[1]}) should not be blank`);
    const name = (match[2] ?? '').toLowerCase();
    if (name !== '' && !/^[a-z][a-z0-9-_.]*$/.test(name))
      throw dockerfileError(
        instruction.line,
        `invalid name for build stage: ${JSON.stringify(match[2])}, name can't start with a number or contain symbols`,
      );
    const platform = new Map(instruction.flags).get('platform');
    const finished = this.#stages.at(-1)?.imageId;
    if (finished !== undefined) this.#parts.progress({ aux: { ID: finished } });
    const earlier = this.#stages.find((each) => each.name === base.toLowerCase());
    const stage: Stage = {
      name,
      index: this.#stages.length,
      imageId: undefined,
      layers: [],
      file: undefined,
      config: {},
      author: '',
      hasOwnCmd: false,
    };
    this.#stages.push(stage);
    this.#arguments.enterStage();
    if (earlier)
      Object.assign(stage, {
        imageId: earlier.imageId,
        layers: earlier.layers,
        file: earlier.file,
        config: earlier.config,
      });
    else if (base !== SCRATCH) {
      const record = await this.#baseImage(
        base,
        platform === undefined ? this.#options.platform : expand(platform),
      );
      const file = this.#parts.images.library.configOf(record.id);
      Object.assign(stage, { imageId: record.id, layers: record.layers, file, config: file.config });
    }
    if (stage.imageId !== undefined) this.#say(` ---> ${short(stage.imageId)}\n`);
    else this.#say(' ---> \n');
    if (!stage.config.Env?.some((entry) => entry.startsWith('PATH=')))
      stage.config = { ...stage.config, Env: setEnv(stage.config.Env ?? [], 'PATH', DEFAULT_PATH) };
    await this.#triggers(stage);
  }

  /** ONBUILD instructions of the base image. */
  async #triggers(stage: Stage): Promise<void> {
    const triggers = stage.config.OnBuild ?? [];
    if (triggers.length === 0) return;
    stage.config = { ...stage.config, OnBuild: undefined };
    this.#say(`# Executing ${triggers.length} build trigger${triggers.length > 1 ? 's' : ''}\n`);
    for (const trigger of triggers) {
      const [instruction] = parseDockerfile(trigger).instructions;
      checkFlags(instruction!);
      await this.#dispatch(instruction!);
    }
    if (stage.imageId !== undefined) this.#say(` ---> ${short(stage.imageId)}\n`);
  }

  /** An image by reference, pulled when it is not here, is of another platform, or the client wants the newest. */
  async #baseImage(reference: string, platform: string): Promise<ImageRecord> {
    const { images, progress, signal, credentialsFor } = this.#parts;
    const { library } = images;
    const wanted = platform === '' ? hostPlatform() : parsePlatform(platform);
    const local = library.find(reference);
    const isRight = local !== undefined && (platform === '' || selectsPlatform(wanted)(local));
    let id = local?.id;
    if (!isRight || this.#options.pull) {
      const { domain } = parseReference(reference);
      const request = {
        credentials: await credentialsFor(domain),
        progress,
        signal,
        ...(platform !== '' && { platform }),
      };
      [id] = await images.pull(reference, request);
    }
    const record = library.parts.records.get(id!)!;
    for (const digest of library.digestsOf(record)) this.#lease.add(digest);
    return record;
  }

  /**
   * Ends an instruction: takes its image from the cache, or makes it.
   * @param isComment whether the history shows the instruction as a comment, since no command ran.
   */
  async #commit(
    stage: Stage,
    description: string,
    config: ImageConfig,
    produce?: () => Promise<LayerRecord | undefined>,
    isComment = true,
  ): Promise<void> {
    const { library } = this.#parts.images;
    const shell = (stage.config.Shell ?? ['/bin/sh', '-c']).join(' ');
    const createdBy = isComment
      ? `${shell} #(nop) ${/^(COPY|ADD) /.test(description) ? '' : ' '}${description}`
      : description;
    const key = cacheKey(stage.imageId, createdBy, config, stage.author);
    const cached = this.#options.noCache
      ? undefined
      : await findCached(
          library,
          {
            imageId: stage.imageId,
            layers: stage.layers,
            file: stage.file,
            key,
            createdBy,
            config,
            author: stage.author,
            lease: this.#lease,
          },
          this.#cacheSources,
        );
    if (cached) {
      this.#say(' ---> Using cache\n');
      this.#parts.observer?.cached();
    }
    const record =
      cached ??
      (await library.derive({
        base: stage.file,
        baseLayers: stage.layers,
        layer: await produce?.(),
        config,
        step: { created_by: createdBy, comment: '', author: stage.author },
        parentId: stage.imageId,
        cacheKey: key,
        lease: this.#lease,
      }));
    for (const digest of library.digestsOf(record)) this.#lease.add(digest);
    stage.imageId = record.id;
    stage.layers = record.layers;
    stage.file = library.configOf(record.id);
    stage.config = config;
  }
}

const short = (id: string): string => id.slice('sha256:'.length, 'sha256:'.length + 12);

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
