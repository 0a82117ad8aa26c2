import type { QueuePort } from '../../bullmq/queue-port.js';
import type { Dependency } from '../../resilience/dependency/dependency.js';
import type { JobEvents } from '../../events/job-events.js';

/** A queue whose jobs all need the dependency. */
export interface PausedQueue {
  readonly port: QueuePort;
  readonly dependency: Dependency;
}

/**
 * Keeps the workers of all processes from taking jobs off queues whose dependency's circuit is open. Uses BullMQ's own
 * rate limit, which ends by itself, so that a process that dies leaves no queue paused. If it ends while the circuit is
 * still open (a person may keep it open for any time), the first job that is deferred sets it again.
 *
 * @returns the function that stops this
 */
export function pauseWhileOpen(
  events: JobEvents,
  queues: readonly PausedQueue[],
  onError: (message: string, error: unknown) => void,
): () => void {
  if (queues.length === 0) return () => undefined;
  const tails = new Map<QueuePort, Promise<void>>();
  const waiting = new Set<QueuePort>();
  const paused = new Set<QueuePort>();
  return events.subscribe((event) => {
    const isDeferred = event.kind === 'deferred' && event.cause === 'circuit_open';
    if (event.kind !== 'circuit_changed' && !isDeferred) return;
    for (const { port, dependency } of queues) {
      if (dependency.name !== event.dependency || waiting.has(port)) continue;
      waiting.add(port);
      // Changes of a queue run one after the other, and each applies the circuit's state at its start. One waiting
      // change is therefore enough.
      const tail = (tails.get(port) ?? Promise.resolve())
        .then(() => {
          waiting.delete(port);
          return change(port, dependency, paused);
        })
        .catch((error: unknown) =>
          onError(`Queue "${port.name}" could not be paused or resumed with "${dependency.name}"`, error),
        );
      tails.set(port, tail);
    }
  });
}

/**
 * Only the dependency's own circuit counts: circuits of single keys say nothing about the queue. A pause that another
 * process set is left alone.
 */
async function change(
  port: QueuePort,
  { ownCircuit: { circuit, retryAfterMs } }: Dependency,
  paused: Set<QueuePort>,
): Promise<void> {
  if (circuit === 'open' || circuit === 'forced_open') {
    paused.add(port);
    return port.holdBack(retryAfterMs);
  }
  const isOver = circuit === 'closed' && paused.has(port);
  if (!isOver && circuit !== 'forced_closed') return;
  paused.delete(port);
  await port.letGo();
}
