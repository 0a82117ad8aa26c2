import { randomBytes } from 'node:crypto';
import type { JobsOptions } from 'bullmq';
import type { RequestOptions } from './enqueue.options.js';

/**
 * How an operation takes part in a flow. One of BullMQ's four options, or none, decides what its death does to the parent.
 */
export type FlowNodeOptions = RequestOptions &
  Pick<
    JobsOptions,
    | 'failParentOnFailure'
    | 'continueParentOnFailure'
    | 'ignoreDependencyOnFailure'
    | 'removeDependencyOnFailure'
  >;

/** An operation as a node of a flow. Pass it to BullMQ's FlowProducer, with `children` if it has any. */
export interface FlowNode {
  readonly name: string;
  readonly queueName: string;
  readonly prefix?: string;
  readonly data: unknown;
  readonly opts: Omit<JobsOptions, 'parent' | 'repeat' | 'deduplication'>;
}

/**
 * A node's job options, with an id that begins with the operation's and is made anew on each read. BullMQ attaches no
 * second parent to an existing job, so each place in a tree gets a job of its own. All of these jobs carry one operation:
 * it runs once, and its result is replayed into every parent.
 */
export function withJobIdPerUse(opts: JobsOptions, jobId: string): JobsOptions {
  return {
    ...opts,
    get jobId() {
      return `${jobId}-${randomBytes(9).toString('base64url')}`;
    },
  };
}
