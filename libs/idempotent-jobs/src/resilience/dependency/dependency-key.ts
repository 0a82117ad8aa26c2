import type { Job } from 'bullmq';
import { UsageError } from '../../operation/errors.js';
import { messageOf } from '../../operation/thrown.js';

/** The operation whose dependency key is computed, before the operation is claimed. */
export interface KeyedOperation {
  readonly tenantId: string;
  readonly operationKey: string;
  readonly queue: string;
  readonly jobName: string;
  /** `data` is the validated payload. */
  readonly job: Job;
}

/** A dependency with a circuit and a retry budget for each key, for example for each tenant's own endpoint. */
export interface KeyedDependency {
  /** One of `forRoot({ dependencies })`. */
  readonly name: string;
  /**
   * Returns the key of an operation: 1 to 400 characters, e.g. `(operation) => operation.tenantId`, or the host of the
   * endpoint in `operation.job.data`. Synchronous. If it throws, or returns anything else, the attempt fails before the
   * handler.
   */
  readonly per: (operation: KeyedOperation) => string;
}

/** Long enough for hosts, tenants and most URLs; a thousand of them take little memory. */
const MAX_KEY_LENGTH = 400;

/** @throws UsageError for an invalid key. The message never has the value, which may be a tenant's secret URL */
export function assertDependencyKey(dependency: string, key: unknown): string {
  if (typeof key === 'string' && key.length > 0 && key.length <= MAX_KEY_LENGTH) return key;
  const found = typeof key === 'string' ? `a string of ${key.length} characters` : typeof key;
  throw new UsageError(
    `The key of dependency "${dependency}" (per) must be a string of 1 to ${MAX_KEY_LENGTH} characters, but is ${found}. Without a key its failures would be somebody else's.`,
  );
}

/** @throws UsageError if `per` throws, or returns no valid key */
export function keyOfOperation(
  dependency: string,
  per: KeyedDependency['per'],
  operation: KeyedOperation,
): string {
  let key: unknown;
  try {
    key = per(operation);
  } catch (cause) {
    const error = new UsageError(
      `per of dependency "${dependency}" threw, so the operation has no circuit: ${messageOf(cause)}`,
    );
    error.cause = cause;
    throw error;
  }
  return assertDependencyKey(dependency, key);
}

/** What is kept for a key until it is forgotten. */
interface Forgettable {
  /** Whether forgetting it loses next to nothing: its circuit is closed, and none of its calls is under way. */
  readonly isIdle: boolean;
}

/**
 * What is known of each key, for a limited number of keys. When a new key exceeds it, the key that was unused for longest
 * is forgotten: among the idle ones, or among all if none is idle.
 */
export class KeyedCircuits<Circuit extends Forgettable> {
  /** In the order of their last use. */
  readonly #known = new Map<string, Circuit>();

  constructor(
    private readonly maxKeys: number,
    private readonly make: () => Circuit,
  ) {}

  of(key: string): Circuit {
    const circuit = this.#known.get(key) ?? this.#made();
    this.#known.delete(key);
    this.#known.set(key, circuit);
    return circuit;
  }

  get all(): Iterable<Circuit> {
    return this.#known.values();
  }

  #made(): Circuit {
    if (this.#known.size >= this.maxKeys) this.#known.delete(this.#leastNeeded());
    return this.make();
  }

  #leastNeeded(): string {
    for (const [key, { isIdle }] of this.#known) if (isIdle) return key;
    const [oldest] = this.#known.keys();
    return oldest as string;
  }
}
