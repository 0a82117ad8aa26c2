import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks';

/** What asynchronous code carries along: the tenant it works for, and the operation it runs for. */
export interface Frame {
  /** The application's TenantContext that opened the frame. Another application's does not see it. */
  readonly owner: object;
  readonly tenantId: string;
  /** Set when a handler starts. Typed by its reader, `currentOperation()`. */
  operation: unknown;
  /** Whether a handler's transaction is open around the code. A second one in it could wait for a connection for ever. */
  holdsTransaction?: boolean | undefined;
  /** The dependencies that have given the code a permit; its calls of them run under that permit. */
  dependencies?: readonly object[] | undefined;
  /** The delivery whose guards and interceptors the code runs in. Typed by its reader, `GuardedRun`. */
  guarded?: object | undefined;
  /** The guarded calls around the code, the innermost last. Typed by their reader, `IdempotencyService`. */
  calls?: readonly object[] | undefined;
}

/** The frames of all applications of the process. They share one storage, because each storage slows down every promise. */
export const frames = new AsyncLocalStorage<Frame>();

/** Runs `fn` in that frame, or in none. Other asynchronous context, such as a trace, stays. */
export function inFrame<T>(frame: Frame | undefined, fn: () => T): T {
  return frames.run(frame as Frame, fn);
}

/** Created when this module is first loaded, which is before any request. */
const outside = new AsyncResource('nestjs-idempotent-jobs:outside');

/**
 * Runs `fn` so that neither it nor what it starts inherits a frame. A BullMQ worker that is started inside of a request
 * would otherwise carry that request's tenant into every later job.
 */
export function outsideOfAnyFrame<T>(fn: () => T): T {
  return outside.runInAsyncScope(fn);
}
