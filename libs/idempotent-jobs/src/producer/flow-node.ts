import { randomBytes } from 'node:crypto';
import type { JobsOptions } from 'bullmq';
import type { RequestOptions } from './enqueue.options.js';

/** How an operation takes part in a flow. What becomes of the parent when it dies: one of BullMQ's four options, or none. */
export type FlowNodeOptions = RequestOptions &
  Pick<
    JobsOptions,
    | 'failParentOnFailure'
    | 'continueParentOnFailure'
    | 'ignoreDependencyOnFailure'
    | 'removeDependencyOnFailure'
  >;

/** An operation as a node of a flow: hand it to BullMQ's FlowProducer, with `children` if it has any. */
export interface FlowNode {
  readonly name: string;
  readonly queueName: string;
  readonly prefix?: string;
  readonly data: unknown;
  readonly opts: Omit<JobsOptions, 'parent' | 'repeat' | 'deduplication'>;
}

/**
 * A node's job options under an id that begins with the operation's and is made anew whenever it is read: BullMQ attaches
 * no second parent to a job that it has, so each place that a node is put in gets a job of its own. The operation of
 * these jobs is one: it runs once, and its result is replayed into every parent.
 */
export function withJobIdPerUse(opts: JobsOptions, jobId: string): JobsOptions {
  return {
    ...opts,
    get jobId() {
      return `${jobId}-${randomBytes(9).toString('base64url')}`;
    },
  };
}
