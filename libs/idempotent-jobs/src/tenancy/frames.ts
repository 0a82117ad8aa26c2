import { AsyncLocalStorage } from 'node:async_hooks';

/** What asynchronous code carries along: whose work it is, and which operation it runs for. */
export interface Frame {
  /** The application's TenantContext that opened the frame. Another application's does not see it. */
  readonly owner: object;
  readonly tenantId: string;
  /** Set when a handler starts. Typed by its reader, `currentOperation()`. */
  operation: unknown;
  /** Whether a handler's transaction is open around the code: another one inside of it could wait for a connection for ever. */
  holdsTransaction?: boolean | undefined;
  /** The dependencies that have let the code through: its calls of them are part of that. */
  dependencies?: readonly object[] | undefined;
  /** The delivery whose guards and interceptors the code runs in. Typed by its reader, `GuardedRun`. */
  guarded?: object | undefined;
  /** The guarded calls around the code, the innermost last. Typed by their reader, `IdempotencyService`. */
  calls?: readonly object[] | undefined;
}

/**
 * The frames of all applications of the process. One storage for all there is to carry, because each costs time on
 * every promise of the process.
 */
export const frames = new AsyncLocalStorage<Frame>();

/** Runs `fn` in that frame, or in none. Whatever else asynchronous code carries along, a trace for example, stays. */
export function inFrame<T>(frame: Frame | undefined, fn: () => T): T {
  return frames.run(frame as Frame, fn);
}
