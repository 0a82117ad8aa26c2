import type { Job } from 'bullmq';

/**
 * A queue's jobs, described once: what each takes and what it returns.
 *
 * ```ts
 * interface ChargeJobs {
 *   charge: { payload: Charge; result: Receipt };
 *   refund: { payload: Refund; result: void };
 * }
 * ```
 */
export type JobMap<M = Record<string, JobType>> = { [N in keyof M]: JobType };

/** One entry of a {@link JobMap}. */
export interface JobType {
  payload: any;
  result: any;
}

/** The default without a description: every job name, payload and result is allowed. */
export type AnyJobs = Record<string, JobType>;

/** The names of a queue's jobs. */
export type JobName<M extends JobMap<M>> = keyof M & string;

/** What a job of that name takes. */
export type PayloadOf<M extends JobMap<M>, N extends JobName<M> = JobName<M>> = M[N]['payload'];

/** What a job of that name returns. */
export type ResultOf<M extends JobMap<M>, N extends JobName<M> = JobName<M>> = M[N]['result'];

/** The job that a handler of the queue receives: `data` is the validated payload, and `name` tells which payload it is. */
export type OperationJob<M extends JobMap<M>> = {
  [N in JobName<M>]: Job<PayloadOf<M, N>, ResultOf<M, N>, N>;
}[JobName<M>];
