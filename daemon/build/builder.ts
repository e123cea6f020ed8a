/**
 * Builds a Dockerfile: its stages one after the other as docker's classic builder does, or, as BuildKit does, only those
 * that the target needs, independent ones side by side. What a stage does is in {@link StageBuilder}.
 */
import { DrydockError } from '#common/errors';
import { hostPlatform, parsePlatform } from '../image/platform.ts';
import type { ImageRecord } from '../image/records.ts';
import { formatFamiliar, formatNormal, parseReference, parseTagged } from '../image/reference.ts';
import { BuildArguments } from './arguments.ts';
import { parseDockerfile } from './dockerfile.ts';
import type { BuildOptions, BuildParts } from './options.ts';
import { StageBuilder, short } from './stage.ts';
import { type BuildPlan, dependenciesOf, findStage, planStages, type StagePlan } from './stages.ts';
import { expandWord } from './words.ts';

/** Builds one Dockerfile. */
export class Builder {
  readonly #options: BuildOptions;
  readonly #parts: BuildParts;
  readonly #failed: AbortController = new AbortController();
  readonly #builds = new Map<StagePlan, Promise<StageBuilder>>();

  constructor(options: BuildOptions, parts: BuildParts) {
    this.#options = options;
    // What has failed in one stage ends the others.
    this.#parts = { ...parts, signal: AbortSignal.any([parts.signal, this.#failed.signal]) };
  }

  /** Builds. @returns the image's id. @throws DrydockError; steps that were done stay as cache */
  async run(): Promise<string> {
    const dockerfile = parseDockerfile(this.#options.dockerfile);
    const { target, labels, tags, platform } = this.#options;
    const names = tags.map(parseTagged);
    const plan = planStages(dockerfile.instructions, target, labels);
    const platformWanted = platform === '' ? hostPlatform() : parsePlatform(platform);
    const globals = new BuildArguments(this.#options.buildArgs, platformWanted);
    const { library } = this.#parts.images;
    return library.lease(async (lease) => {
      const cacheSources = await this.#cacheSources();
      this.#begin(plan, globals, dockerfile.escape);
      const make = (stage: StagePlan): StageBuilder =>
        new StageBuilder(stage, {
          options: this.#options,
          parts: this.#parts,
          escape: dockerfile.escape,
          globals,
          lease,
          cacheSources,
          stepOf: this.#stepCounter(plan),
          stageBefore: async (reference) => {
            const found = findStage(plan.stages, reference, stage);
            return found && this.#build(found, plan, make);
          },
        });
      const last = await this.#stages(plan, make);
      const id = last.imageId;
      if (id === undefined)
        throw new DrydockError('ERR_BUILD', 'No image was generated. Is your Dockerfile empty?');
      const unused = globals.unused();
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

  /** The images of --cache-from that are here; BuildKit's clients expect them to be fetched. */
  async #cacheSources(): Promise<ImageRecord[]> {
    const { images, credentialsFor, signal, progress } = this.#parts;
    const { library } = images;
    const sources: ImageRecord[] = [];
    for (const reference of this.#options.cacheFrom) {
      if (this.#options.mode === 'buildkit' && !library.find(reference)) {
        const credentials = await credentialsFor(parseReference(reference).domain);
        // A cache that is not there yet is no error: the first build makes it.
        await images.pull(reference, { credentials, progress, signal }).catch(() => signal.throwIfAborted());
      }
      const image = library.find(reference);
      if (image) sources.push(library.parts.records.get(image.id)!);
    }
    return sources;
  }

  /** ARGs before the first FROM. */
  #begin(plan: BuildPlan, globals: BuildArguments, escapeChar: string): void {
    const step = this.#stepCounter(plan);
    for (const instruction of plan.globals) {
      this.#say(step(instruction));
      globals.declareGlobal(instruction.text, (word) => expandWord(word, globals.variables([]), escapeChar));
    }
  }

  /** The classic builder's line for an instruction: they are counted through all stages. */
  #stepCounter(plan: BuildPlan): (instruction: StagePlan['from']) => string {
    const all = [
      ...plan.globals,
      ...plan.stages.flatMap(({ from, instructions }) => [from, ...instructions]),
    ];
    return (instruction) => `Step ${all.indexOf(instruction) + 1}/${all.length} : ${instruction.original}\n`;
  }

  async #stages(plan: BuildPlan, make: (stage: StagePlan) => StageBuilder): Promise<StageBuilder> {
    const target = plan.stages.at(-1)!;
    try {
      if (this.#options.mode === 'classic')
        for (const stage of plan.stages.slice(0, -1)) {
          const { imageId } = await this.#build(stage, plan, make);
          if (imageId !== undefined) this.#parts.progress({ aux: { ID: imageId } });
        }
      return await this.#build(target, plan, make);
    } catch (error) {
      this.#failed.abort(error);
      // Nothing may be under way when the build's files are removed. The first failure is the one to tell.
      await Promise.allSettled(this.#builds.values());
      throw this.#failed.signal.reason;
    }
  }

  /** Builds a stage once, whoever needs it. What it names is begun with it. */
  #build(stage: StagePlan, plan: BuildPlan, make: (stage: StagePlan) => StageBuilder): Promise<StageBuilder> {
    const known = this.#builds.get(stage);
    if (known) return known;
    const builder = make(stage);
    const building = builder.run().then(
      () => builder,
      (error) => {
        this.#failed.abort(error);
        throw error;
      },
    );
    this.#builds.set(stage, building);
    // Who needs it, hears of its failure.
    building.catch(() => {});
    if (this.#options.mode === 'buildkit')
      for (const needed of dependenciesOf(plan.stages, stage))
        void this.#build(needed, plan, make).catch(() => {});
    return building;
  }

  #say(text: string): void {
    if (!this.#options.quiet) this.#parts.progress({ stream: text });
  }
}
