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
  /** Whether the processor declares its effect; false when it got the default. */
  readonly isEffectGiven: boolean;
  readonly timeoutMs: number;
  readonly isTimeoutGiven: boolean;
  readonly attempts: number;
  /** The processor's own, or its dependency's. Undefined when not declared. */
  readonly clientRetries: number | undefined;
  /** The name of its dependency. Undefined when it has none. */
  readonly dependency: string | undefined;
  /** Whether the dependency has a circuit for each key. */
  readonly hasCircuitPerKey: boolean;
  /** The fields of its payload classes that are validated as URLs. */
  readonly urlFields: readonly string[];
  /** Whether it derives tenants from job data, with `identify`. */
  readonly identifies: boolean;
  /** The worker's option. */
  readonly removeOnFail: RemoveOnFail;
}

/** A class with only `@Processor()`, on any queue that is not a dead-letter queue. */
export interface PlainProcessor {
  readonly name: string;
  readonly queue: string;
  readonly attempts: number;
  /** The worker's option, or else the queue's. */
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
  /** Undefined when not declared. */
  readonly clientRetries: number | undefined;
  /**
   * Whether its circuit was seen to open on one tenant's failures alone, and to reject others whose calls had succeeded.
   */
  readonly isSharedByTenants: boolean;
}

/** What the doctor needs to know about an application. Plain data. */
export interface AppDescription {
  readonly processors: readonly DescribedProcessor[];
  readonly plainProcessors: readonly PlainProcessor[];
  readonly queues: readonly DescribedQueue[];
  readonly dependencies: readonly DescribedDependency[];
  /** Schedulers for whose iterations `identify` was seen to give the same key. */
  readonly sharedKeys: readonly SharedKey[];
  readonly resolvesTenants: boolean;
  /** ISO 8601. Undefined when jobs are not signed, or must be. */
  readonly unsignedUntil: string | undefined;
  readonly handsOnTrace: boolean;
  readonly logs: 'all' | 'problems' | 'none';
}
