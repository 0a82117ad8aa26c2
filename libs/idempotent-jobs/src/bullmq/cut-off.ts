import type { Worker } from 'bullmq';

/**
 * Ends the connections of a worker whose handlers did not end in time. One that ends later, or has ended and was about to
 * be told of, has nobody to be told to: BullMQ 5 would try that again and again without a pause, and the process would never
 * end. So BullMQ tells nothing from here on, and goes on to close the worker. What the ledger has recorded stays recorded.
 */
export function cutOff(worker: Worker): Promise<void> {
  const tellNothing = async (): Promise<void> => undefined;
  Object.assign(worker, {
    retryIfFailed: tellNothing,
    // One that is being tried again calls these.
    handleCompleted: tellNothing,
    handleFailed: tellNothing,
  });
  return worker.disconnect();
}
