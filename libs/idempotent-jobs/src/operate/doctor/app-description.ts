import type { JobsOptions } from 'bullmq';
import type { SharedKey } from '../../worker/intake/shared-keys.js';
import type { Effect } from '../../operation/effect.js';
import type { Retention } from '../../ledger/retention.options.js';

/** What BullMQ does with failed jobs. */
export type RemoveOnFail = JobsOptions['removeOnFail'];

/** A class with `@IdempotentProcessor()`. */
export interface DescribedProcessor {
  readonly name: string;
  readonly queue: string;
  readonly effect: Effect;
  /** Whether the processor says so, or got the default. */
  readonly isEffectGiven: boolean;
  readonly timeoutMs: number;
  readonly isTimeoutGiven: boolean;
  readonly attempts: number;
  /** Of itself, or of its dependency; undefined: not declared. */
  readonly clientRetries: number | undefined;
  /** The name of its dependency; undefined: none. */
  readonly dependency: string | undefined;
  /** Whether the dependency has a circuit for each key. */
  readonly hasCircuitPerKey: boolean;
  /** The fields of its payload classes that are validated as URLs. */
  readonly urlFields: readonly string[];
  /** Whether it reads tenants from job data, with `identify`. */
  readonly identifies: boolean;
  /** Of its worker. */
  readonly removeOnFail: RemoveOnFail;
}

/** A class with nothing but `@Processor()`, on any queue that is no dead-letter queue. */
export interface PlainProcessor {
  readonly name: string;
  readonly queue: string;
  readonly attempts: number;
  /** Of its worker, or else of its queue. */
  readonly removeOnFail: RemoveOnFail;
}

/** A queue of `IdempotentJobsModule.registerQueue()`. */
export interface DescribedQueue {
  readonly name: string;
  readonly deadLetterQueue: string;
  readonly retention: Retention;
  readonly removeOnFail: RemoveOnFail;
}

/** A dependency of `forRoot({ dependencies })`. */
export interface DescribedDependency {
  readonly name: string;
  /** Undefined: not declared. */
  readonly clientRetries: number | undefined;
  /** Whether its circuit was seen to open on one tenant's failures alone, and to hold back others that were answered. */
  readonly isSharedByTenants: boolean;
}

/** An application, as far as the doctor looks. Plain data. */
export interface AppDescription {
  readonly processors: readonly DescribedProcessor[];
  readonly plainProcessors: readonly PlainProcessor[];
  readonly queues: readonly DescribedQueue[];
  readonly dependencies: readonly DescribedDependency[];
  /** Schedulers whose iterations `identify` was seen to give one key. */
  readonly sharedKeys: readonly SharedKey[];
  readonly resolvesTenants: boolean;
  /** ISO 8601. Undefined: jobs are not signed, or have to be. */
  readonly unsignedUntil: string | undefined;
  readonly handsOnTrace: boolean;
  readonly logs: 'all' | 'problems' | 'none';
}
