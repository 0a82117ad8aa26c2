import type { OutgoingJob } from '../bullmq/queue-port.js';

/** A committed row that must get to a BullMQ queue. */
export interface DueJob {
  /** The queue to put it on. */
  readonly queue: string;
  readonly job: OutgoingJob;
  /** Identifies the row to the source. */
  readonly row: unknown;
}

/** A table whose rows must get to BullMQ: operations to their queues, dead letters to theirs. */
export interface DispatchSource {
  /** Whether BullMQ retries these jobs. */
  readonly carriesRetries: boolean;
  /** The queue on which the rows of a source queue are put. */
  readonly targetOf: (queue: string) => string;
  /** Takes due rows for `reserveMs`, so that no other instance takes them meanwhile. At most `limit`, oldest first. */
  take(queues: readonly string[], limit: number, reserveMs: number): Promise<DueJob[]>;
  /** Notes that they are on their queues. */
  mark(jobs: readonly DueJob[]): Promise<void>;
}
