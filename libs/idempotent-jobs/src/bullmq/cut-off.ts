import type { Worker } from 'bullmq';

/**
 * Ends the connections of a worker whose handlers did not end in time. One that ends later has nobody to tell: BullMQ 5
 * would try that again and again without a pause, and the process would never end. So nothing is tried again from here on.
 */
export function cutOff(worker: Worker): Promise<void> {
  Object.assign(worker, { retryIfFailed: () => new Promise(() => undefined) });
  return worker.disconnect();
}
