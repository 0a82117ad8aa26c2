import { hash } from 'node:crypto';
import type { Job } from 'bullmq';
import { MAX_JOB_NAME_LENGTH } from './identity.js';
import { cleanText } from './thrown.js';

/** How letters, events and logs name a job. */
export interface JobSubject {
  readonly queue: string;
  readonly jobName: string;
  readonly jobId: string;
}

/** Name and id are cut to an operation's limits, because a producer can make them as long as a job's data. */
export function jobSubjectOf({
  queueName,
  name,
  id = '',
}: Pick<Job, 'queueName' | 'name' | 'id'>): JobSubject {
  return { queue: queueName, jobName: cleanText(name, MAX_JOB_NAME_LENGTH), jobId: storableJobId(id) };
}

/** A job id as a dead letter stores it. It is part of an index, whose entries must be short. */
export function storableJobId(jobId: string): string {
  const text = cleanText(jobId);
  if (text.length <= MAX_JOB_ID_LENGTH) return text;
  return `${text.slice(0, MAX_JOB_ID_LENGTH - 44).toWellFormed()}-${hash('sha256', jobId, 'base64url')}`;
}

/** Why an operation cannot be recorded under a job's id. Undefined when it can. The text does not contain the id. */
export function jobIdProblem(jobId: string): string | undefined {
  if (jobId.length > MAX_JOB_ID_LENGTH)
    return `The job id has ${jobId.length} characters; at most ${MAX_JOB_ID_LENGTH} are allowed.`;
  return cleanText(jobId) === jobId ? undefined : 'The job id holds a NUL or a malformed character.';
}

/** Far below the limit of a Postgres index entry (2,704 bytes), even in four-byte characters. */
const MAX_JOB_ID_LENGTH = 255;

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

/** What is wrong with a deadline. Undefined when it is valid. */
export function deadlineProblem(deadline: unknown): string | undefined {
  if (!(deadline instanceof Date) || Number.isNaN(deadline.getTime())) return 'must be a valid Date';
  return deadline.getTime() < EARLIEST_MS ? 'must not be before the year 1' : undefined;
}

/** A Date can be earlier than Postgres allows, and such a deadline is a mistake. */
const EARLIEST_MS = Date.parse('0001-01-01T00:00:00.000Z');
