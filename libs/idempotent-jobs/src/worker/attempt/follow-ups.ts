import { Injectable } from '@nestjs/common';
import { type NewDeadLetter, LetterStore } from '../../dead-letters/letter.store.js';
import { type RequestedOperation, OperationStore } from '../../producer/operation.store.js';
import { JobEvents } from '../../events/job-events.js';
import { OperationConflictError } from '../../operation/errors.js';
import type { Queryable } from '../../ledger/postgres/database.js';

/**
 * Writes the operations that a handler enqueued, in the transaction that records its outcome. The effect has happened
 * by then, so follow-ups must not fail the outcome: a key that belongs to another request makes a dead letter, not an
 * error.
 */
@Injectable()
export class FollowUps {
  constructor(
    private readonly operations: OperationStore,
    private readonly letters: LetterStore,
    private readonly events: JobEvents,
  ) {}

  /** Returns what to call once the transaction has committed: it emits the events of the dead letters that were written. */
  async write(
    connection: Queryable,
    followUps: readonly RequestedOperation[],
    runId: string,
  ): Promise<() => void> {
    const run = this.operations.on(connection);
    const conflicts: RequestedOperation[] = [];
    for (const queue of new Set(followUps.map((requested) => requested.queue))) {
      const requested = followUps.filter((followUp) => followUp.queue === queue);
      const accepted = await this.operations.accept(run, requested);
      await this.operations.announce(run, queue);
      conflicts.push(...requested.filter((_followUp, index) => accepted[index]?.kind === 'conflict'));
    }
    const refused: RequestedOperation[] = [];
    for (const requested of conflicts)
      if (await this.#writeLetter(connection, requested, runId)) refused.push(requested);
    return () => refused.forEach((requested) => this.#tellOf(requested));
  }

  async #writeLetter(connection: Queryable, requested: RequestedOperation, runId: string): Promise<boolean> {
    const { tenantId, operationKey, queue, jobName, jobId, payload, fingerprint } = requested;
    const letter: NewDeadLetter = {
      identity: { tenantId, operationKey },
      queue,
      jobName,
      jobId,
      reason: 'idempotency_conflict',
      payload,
      fingerprint,
      error: new OperationConflictError(tenantId, operationKey),
      runId,
    };
    return this.letters.write(letter, connection);
  }

  #tellOf({ tenantId, operationKey, queue, jobName, jobId }: RequestedOperation): void {
    this.events.emit({
      kind: 'dead',
      queue,
      jobName,
      jobId,
      tenantId,
      operationKey,
      isFollowUp: true,
      attempt: 0,
      reason: 'idempotency_conflict',
      failure: 'permanent',
      failureCode: 'idempotency_conflict',
      error: new OperationConflictError(tenantId, operationKey).message,
      durationMs: 0,
    });
  }
}
