import type { LetterResult } from '../dead-letter/dead-letter.options.js';
import type { JobEvents } from '../observe/job-events.js';
import { DeadLetterRefusedError, InvalidPayloadError, UsageError } from '../operation/errors.js';
import { assertName, jobIdOf, type OperationIdentity, type OperationName } from '../operation/identity.js';
import { toJsonText } from '../operation/json.js';
import { assertAuthor, type Author } from '../operation/ledger-action.js';
import type { OperationStatus } from '../operation/status.js';
import { shownKey } from '../operation/step-key.js';
import type { Database } from '../postgres/database.js';
import { resultBinding } from '../sealing/binding.js';
import { isSealed } from '../sealing/sealed.js';
import type { Sealer } from '../sealing/sealer.js';
import { type EffectVerdict, notApplied } from '../reconcile/verdict.js';
import { SETTLE_APPLIED, SETTLE_NOT_APPLIED } from './settle.statements.js';

/** Who says what became of an operation. */
export interface SettleOptions {
  /** E.g. `stripe-webhook`, 1 to 200 characters: kept in the audit as the actor. */
  readonly source: string;
  /** Default: that it was settled from outside. 1 to 2,000 characters. */
  readonly note?: string;
  /**
   * For `notApplied()`: of when that is true. An attempt that was started later is not meant, so that a webhook that comes
   * twice, or late, has no say about it. Default: now.
   */
  readonly asOf?: Date;
}

/** What {@link OutcomeService.settle} has done. A webhook may come twice, or late: only `settled` has changed anything. */
export interface SettleResult {
  /**
   * - `settled`: the operation is completed, or will be run again.
   * - `completed`: it was before.
   * - `not_started`: nothing was tried yet that could have happened or not.
   * - `under_way`: not applied, it is said, but an attempt is running, which will tell by itself.
   * - `outdated`: not applied, it is said, but another attempt was started since `asOf`.
   * - `no_doubt`: not applied, which was known: it waits for its next attempt.
   * - `dead`: it was given up knowing that nothing happened; redrive its letter to run it again.
   * - `unknown`: there is no such operation.
   */
  readonly kind:
    'settled' | 'completed' | 'not_started' | 'under_way' | 'outdated' | 'no_doubt' | 'dead' | 'unknown';
}

/** What a settler needs of the application. */
export interface SettlerServices {
  readonly database: Database;
  readonly events: JobEvents;
  readonly sealer: Sealer;
  /** For queues that have told no retention of their own, in ms. */
  readonly completedMs: number;
  /** Operations of that queue have become due. */
  readonly onDue: (queue: string) => Promise<void>;
  /** Resolves the open letter of an operation. */
  readonly resolve: (
    operation: OperationName,
    verdict: EffectVerdict,
    author: Author,
  ) => Promise<LetterResult>;
}

interface SettledRow {
  readonly verdict: SettleResult['kind'] | 'buried';
  readonly status: OperationStatus;
  readonly queue: string;
  readonly job_name: string;
  readonly job_id: string;
  readonly attempts: number;
}

/** What a refusal to resolve the letter means here. */
const REFUSED: Readonly<Record<string, SettleResult['kind']>> = {
  not_in_doubt: 'dead',
  has_completed: 'completed',
  under_way: 'under_way',
};

/** Writes what somebody outside knows about an operation: a webhook, mostly. */
export class Settler {
  constructor(private readonly services: SettlerServices) {}

  async settle(
    operation: OperationName,
    verdict: EffectVerdict,
    { source, note = 'settled from outside', asOf }: SettleOptions,
  ): Promise<SettleResult> {
    if (typeof source !== 'string' || source.trim() === '' || source.length > 200)
      throw new UsageError(
        'settle() needs its source, in 1 to 200 characters: { source: "gateway-webhook" }.',
      );
    const author = assertAuthor({ actor: source, note });
    if (verdict?.kind !== 'applied' && verdict?.kind !== 'not_applied')
      throw new UsageError('settle() needs applied(result) or notApplied().');
    if (asOf !== undefined && !(asOf instanceof Date && !Number.isNaN(asOf.getTime())))
      throw new UsageError('settle(): asOf must be a valid Date.');
    const identity = assertName(operation);
    const row = await this.#write(identity, verdict, author, asOf);
    if (row === undefined) return { kind: 'unknown' };
    if (row.verdict === 'buried') return this.#resolve(operation, author);
    if (row.verdict === 'settled') {
      const { queue, job_name: jobName, job_id: jobId, attempts: attempt } = row;
      this.services.events.emit({
        kind: 'reconciled',
        queue,
        jobName,
        jobId,
        tenantId: identity.tenantId,
        operationKey: shownKey(identity.operationKey),
        attempt,
        verdict: verdict.kind,
        reason: source,
      });
      // Also for the operation of a step, which is on the same queue.
      await this.services.onDue(queue);
    }
    return { kind: row.verdict };
  }

  async #write(
    { tenantId, operationKey }: OperationIdentity,
    verdict: EffectVerdict,
    { actor, note }: Author,
    asOf: Date | undefined,
  ): Promise<SettledRow | undefined> {
    const { database, completedMs } = this.services;
    const who = [tenantId, operationKey, actor, note];
    if (verdict.kind === 'not_applied') {
      const stem = jobIdOf({ tenantId, operationKey });
      return (await database.run<SettledRow>(SETTLE_NOT_APPLIED, [...who, stem, asOf ?? null]))[0];
    }
    if (isSealed(verdict.result))
      throw new InvalidPayloadError(
        'The result has a property "$sealed", by which the ledger tells what it has encrypted. Name it otherwise.',
      );
    const result =
      verdict.result === undefined
        ? null
        : this.services.sealer.seal(
            toJsonText('result', verdict.result),
            resultBinding({ tenantId, operationKey }),
          );
    return (await database.run<SettledRow>(SETTLE_APPLIED, [...who, result, completedMs]))[0];
  }

  async #resolve(operation: OperationName, author: Author): Promise<SettleResult> {
    try {
      await this.services.resolve(operation, notApplied(), author);
      return { kind: 'settled' };
    } catch (error) {
      // Somebody else was faster, or there is nothing in doubt about it.
      const kind = error instanceof DeadLetterRefusedError ? REFUSED[error.reason] : undefined;
      if (kind === undefined) throw error;
      return { kind };
    }
  }
}
