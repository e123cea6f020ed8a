/**
 * What an API version promises, and the check of an answer against it. Two sources give contracts in one form: moby's
 * swagger files (swagger.ts), and the types of Docker's own SDK (sdk.ts).
 *
 * Stricter than the descriptions themselves: a field that they do not know is a fault too.
 */
import { Ajv2019, type ValidateFunction } from 'ajv/dist/2019.js';

/** A JSON Schema. */
export type Schema = Record<string, unknown>;

/** One endpoint. */
export interface Operation {
  /** Schemas of bodies by status; undefined where a status is promised without one. */
  readonly responses: ReadonlyMap<number, Schema | undefined>;
}

/** All endpoints of a version. */
export interface Contract {
  /** Minor version: 41 for 1.41. */
  readonly minor: number;
  /** Where it was taken from, for messages. */
  readonly source: string;
  /** By `GET /containers/{id}/json`. */
  readonly operations: ReadonlyMap<string, Operation>;
  /** Schemas that others refer to as `#/$defs/Name`. */
  readonly definitions: Readonly<Record<string, Schema>>;
}

/** An answer. */
export interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: Buffer;
}

const STAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/;

/** Validators of a contract, compiled when they are first needed. */
export class Checker {
  readonly contract: Contract;
  readonly #other: Contract | undefined;
  readonly #ajv = new Ajv2019({
    allErrors: true,
    strict: false,
    // Formats of numbers and addresses are not checked.
    logger: false,
    formats: { 'date-time': STAMP, dateTime: STAMP },
    unicodeRegExp: false,
  });
  readonly #compiled = new Map<Schema, ValidateFunction>();

  /** @param other of a much older or newer version: its fields may come too, as Go's structs have them all */
  constructor(contract: Contract, other?: Contract) {
    this.contract = contract;
    this.#other = other;
  }

  /** What is wrong with the body of an answer; an empty list when nothing is. */
  faultsOf(operation: string, status: number, value: unknown): string[] {
    const schema = this.contract.operations.get(operation)?.responses.get(status);
    if (!schema) return [];
    let validate = this.#compiled.get(schema);
    if (!validate) {
      validate = this.#ajv.compile({ ...schema, $defs: this.contract.definitions });
      this.#compiled.set(schema, validate);
    }
    if (validate(value)) return [];
    const unknown = new Set<string>();
    const wrong = new Set<string>();
    for (const { instancePath, keyword, message, params } of validate.errors!) {
      // Which element of a list it is does not matter, and each fault is told once.
      const path = instancePath.replaceAll(/\/\d+(?=\/|$)/g, '/*');
      const field = (params as { unevaluatedProperty?: string }).unevaluatedProperty;
      if (field !== undefined) unknown.add(`${path}/${field}: is not documented`);
      else if (keyword !== 'anyOf') wrong.add(`${path}: ${message}`);
    }
    return [...wrong, ...this.#undocumented([...unknown], operation, status, value)];
  }

  #undocumented(faults: string[], operation: string, status: number, value: unknown): string[] {
    if (!this.#other?.operations.get(operation)?.responses.get(status) || faults.length === 0) return faults;
    const still = new Set(new Checker(this.#other).faultsOf(operation, status, value));
    return faults.filter((fault) => still.has(fault));
  }
}
