/** What is told to BullMQ about a delivery. Every delivery ends in exactly one of these. */
export type Settlement =
  /** The job is done. */
  | { readonly kind: 'ack'; readonly result: unknown }
  /** The attempt failed; BullMQ shows the error and delivers the job again after the delay. */
  | { readonly kind: 'retry'; readonly error: unknown; readonly delayMs: number }
  /** Deliver the job again later; nothing failed and no attempt is spent. */
  | { readonly kind: 'defer'; readonly delayMs: number }
  /** The job has failed for good. */
  | { readonly kind: 'fail'; readonly error: unknown }
  /** The handler has arranged itself, by BullMQ's own means, what happens to the job. */
  | { readonly kind: 'hand_back' };
