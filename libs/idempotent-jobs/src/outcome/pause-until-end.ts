import type { JobEvents } from '../events/job-events.js';
import type { OperationIdentity } from '../operation/identity.js';

/** Waits until the operation ends in this process, at most `ms`: it may also end in another process. */
export function pauseUntilEnd(
  events: JobEvents,
  { tenantId, operationKey }: OperationIdentity,
  ms: number,
): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      unsubscribe();
      resolve();
    };
    const timer = setTimeout(done, ms);
    const unsubscribe = events.subscribe((event) => {
      if (event.tenantId === tenantId && event.operationKey === operationKey && ENDS.has(event.kind)) done();
    });
  });
}

const ENDS: ReadonlySet<string> = new Set(['completed', 'dead', 'in_doubt', 'retrying', 'reconciled']);
