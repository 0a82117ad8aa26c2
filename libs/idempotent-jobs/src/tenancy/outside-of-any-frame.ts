import { AsyncResource } from 'node:async_hooks';

/** Created when this module is first loaded, which is before any request. */
const outside = new AsyncResource('nestjs-idempotent-jobs:outside');

/**
 * Runs `fn` so that neither it nor what it starts inherits a frame. A BullMQ worker that is started inside of a request
 * would otherwise carry that request's tenant into every later job.
 */
export function outsideOfAnyFrame<T>(fn: () => T): T {
  return outside.runInAsyncScope(fn);
}
