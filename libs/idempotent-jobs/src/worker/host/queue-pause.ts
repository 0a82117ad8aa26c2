import type { QueuePort } from '../../bullmq/queue-port.js';
import type { Dependency } from '../../resilience/dependency/dependency.js';
import type { JobEvents } from '../../events/job-events.js';

/** A queue that is worth nothing without its dependency. */
export interface PausedQueue {
  readonly port: QueuePort;
  readonly dependency: Dependency;
}

/**
 * Keeps workers from taking jobs off queues whose dependency's circuit is open: of all processes, by BullMQ's own rate
 * limit, which ends by itself, so that a process that dies leaves no queue paused. Where it ends before the circuit is
 * closed, which a person may keep open for any time, the first jobs to be put off have it begin again.
 *
 * @returns how to stop
 */
export function pauseWhileOpen(
  events: JobEvents,
  queues: readonly PausedQueue[],
  onError: (message: string, error: unknown) => void,
): () => void {
  if (queues.length === 0) return () => undefined;
  const tails = new Map<QueuePort, Promise<void>>();
  const waiting = new Set<QueuePort>();
  const held = new Set<QueuePort>();
  return events.subscribe((event) => {
    const isPutOff = event.kind === 'deferred' && event.cause === 'circuit_open';
    if (event.kind !== 'circuit_changed' && !isPutOff) return;
    for (const { port, dependency } of queues) {
      if (dependency.name !== event.dependency || waiting.has(port)) continue;
      waiting.add(port);
      // One after the other, each by the state it finds: the last word is the last state's, and one that waits is enough.
      const tail = (tails.get(port) ?? Promise.resolve())
        .then(() => {
          waiting.delete(port);
          return change(port, dependency, held);
        })
        .catch((error: unknown) =>
          onError(`Queue "${port.name}" could not be paused or resumed with "${dependency.name}"`, error),
        );
      tails.set(port, tail);
    }
  });
}

/** Circuits of single keys say nothing about the queue. What this process has not held back, another one may have. */
async function change(
  port: QueuePort,
  { ownCircuit: { circuit, retryAfterMs } }: Dependency,
  held: Set<QueuePort>,
): Promise<void> {
  if (circuit === 'open' || circuit === 'forced_open') {
    held.add(port);
    return port.holdBack(retryAfterMs);
  }
  const isOver = circuit === 'closed' && held.has(port);
  if (!isOver && circuit !== 'forced_closed') return;
  held.delete(port);
  await port.letGo();
}
