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
