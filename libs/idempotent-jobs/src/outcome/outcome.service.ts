import { Injectable } from '@nestjs/common';
import { ActionStore } from '../dead-letters/action.store.js';
import { type Report, refusal } from '../dead-letters/judge-letter.js';
import { letterClosed, type LockedOperation } from '../dead-letters/lock.js';
import { toJsonText } from '../operation/json.js';
import { assertAuthor } from '../operation/ledger-action.js';
import { isEncrypted, looksEncrypted, Encryption, resultBinding } from '../ledger/encryption/encryption.js';
import { Due } from '../producer/due.js';
import { assertName, type OperationIdentity, type OperationName } from '../operation/identity.js';
import { InvalidPayloadError, OutcomeTimeoutError, UsageError } from '../operation/errors.js';
import type { OperationStatus } from '../operation/status.js';
import { shownKey } from '../operation/origin.js';
import { Database } from '../ledger/postgres/database.js';
import { isConnectionTrouble } from '../ledger/postgres/no-connection.js';
import { statement } from '../ledger/postgres/statement.js';
import { type JobEvent, JobEvents } from '../events/job-events.js';
import { type HistoryEntry, readHistory } from './history.js';
import { pauseUntilEnd } from './pause-until-end.js';
import type { EffectVerdict } from '../operation/effect.js';
import { TenantContext } from '../tenancy/tenant-context.js';
import type { ErrorEvidence } from '../operation/thrown.js';
import type { ResultOmitted } from '../ledger/record/recorded-result.js';

/** Names an operation to look up. What `enqueue()` returns is one, and carries the result's type. */
export interface OperationRef<Result = unknown> extends OperationName {
  readonly result?: Result | undefined;
}

/** What the ledger knows of an operation. Times are by the database's clock. */
export interface Outcome<Result = unknown> extends OperationIdentity {
  readonly queue: string;
  readonly jobName: string;
  readonly jobId: string;
  readonly status: OperationStatus;
  /** Started attempts; the failed ones follow. While the operation is not running, their difference shows crashes. */
  readonly attempts: number;
  readonly failures: number;
  /** Set once `completed`, unless the handler returned nothing. */
  readonly result: Result | undefined;
  /** Why it completed without the result that its handler returned. */
  readonly resultOmitted: ResultOmitted | undefined;
  /**
   * Why the result is a stand-in: which dependency a fallback answered for, and why, e.g. `gateway: circuit_open`.
   * Undefined when it is a real result.
   */
  readonly degraded: string | undefined;
  /** The last failure, without its stack. */
  readonly error: Pick<ErrorEvidence, 'name' | 'message' | 'code'> | undefined;
  /** Since when the effect may have happened without a record of it. Undefined once `completed`, which is the record. */
  readonly doubtSince: Date | undefined;
  /**
   * When the service is asked next about the doubt. Undefined when it is not asked any more, and a person has to find
   * out.
   */
  readonly reconcileDueAt: Date | undefined;
  readonly createdAt: Date;
  readonly startedAt: Date | undefined;
  readonly settledAt: Date | undefined;
}

/** Who says what became of an operation, and as of when. */
export interface ResolveOptions {
  /** The source, e.g. `stripe-webhook`, 1 to 200 characters. The audit keeps it as the actor. */
  readonly source: string;
  /** A note for the audit, 1 to 2,000 characters. Default: that it was resolved from outside. */
  readonly note?: string;
  /**
   * For `notApplied()`: the time for which it is true. It says nothing about an attempt that was started later, so a
   * webhook that comes late or twice does no harm. Default: now.
   */
  readonly asOf?: Date;
}

/** What {@link OutcomeService.resolve} has done. A webhook may come late or twice: only `resolved` has changed anything. */
export interface ResolveResult {
  /**
   * - `resolved`: the operation is completed, or will be run again.
   * - `completed`: it was completed before.
   * - `not_started`: nothing was tried yet that could have happened or not.
   * - `under_way`: for `notApplied()`: an attempt is running, which will tell by itself.
   * - `outdated`: for `notApplied()`: another attempt was started since `asOf`.
   * - `no_doubt`: for `notApplied()`: this was known already, and the operation waits for its next attempt.
   * - `dead`: it was given up knowing that nothing happened; redrive its dead letter to run it again.
   * - `unknown`: there is no such operation.
   */
  readonly kind:
    'resolved' | 'completed' | 'not_started' | 'under_way' | 'outdated' | 'no_doubt' | 'dead' | 'unknown';
}

const LOOK_UP = statement(
  'look_up',
  `
SELECT tenant_id, operation_key, queue, job_name, job_id, status, attempts, failures, result::text AS result, result_omitted, degraded,
       error, doubt_since, reconcile_due_at,
       created_at, started_at, settled_at
FROM {schema}.job_outcomes
WHERE tenant_id = :tenantId AND operation_key = :operationKey
LIMIT 1
`,
);

/** Looks operations up, waits for their end, and resolves them. Inside a tenant's frame, only that tenant's. */
@Injectable()
export class OutcomeService {
  /** @internal Injected. */
  constructor(
    private readonly database: Database,
    private readonly events: JobEvents,
    private readonly tenants: TenantContext,
    private readonly encryption: Encryption,
    private readonly actions: ActionStore,
    private readonly due: Due,
  ) {}

  /**
   * The operation's row. Undefined when the operation was never asked for, or its row was deleted.
   *
   * @throws TenantMismatchError inside a frame of another tenant, InvalidIdentityError
   * @throws RecordUnreadableError if its result is encrypted and cannot be read here
   */
  async get<Result = unknown>(operation: OperationRef<Result>): Promise<Outcome<Result> | undefined> {
    const { tenantId, operationKey } = this.#visible(operation);
    const [row] = await this.database.read<Outcome<string>>(LOOK_UP.with({ tenantId, operationKey }));
    if (row === undefined) return undefined;
    const result = this.encryption.openText(row.result, resultBinding({ tenantId, operationKey }));
    return {
      ...row,
      operationKey: shownKey(operationKey),
      result: result as Result | undefined,
      error: row.error && { name: row.error.name, message: row.error.message, code: row.error.code },
    };
  }

  /**
   * All that happened to the operation, in order: attempts that failed, with their errors and delays, on any worker;
   * dead letters; what operators did; and, at the end, that it is running or has completed. Empty when the ledger does
   * not know the operation. A delivery that was deferred leaves no trace, nor does an attempt that a shutdown gave back.
   */
  async history(operation: OperationRef): Promise<HistoryEntry[]> {
    return readHistory(this.database, this.#visible(operation));
  }

  /**
   * Waits until nothing more will happen to the operation by itself: until it is completed, dead, or in doubt with no
   * question left to ask. Goes on waiting while Postgres is out of reach.
   *
   * @param options.timeoutMs how long to wait, in ms. Default 30,000.
   * @throws OutcomeTimeoutError if it is not by then; the operation goes on. If Postgres is out of reach even then, the
   *   error of Postgres or its driver. And as {@link get}
   */
  async wait<Result = unknown>(
    operation: OperationRef<Result>,
    { timeoutMs = 30_000 }: { readonly timeoutMs?: number } = {},
  ): Promise<Outcome<Result>> {
    if (!(timeoutMs >= 0))
      throw new UsageError(`wait() needs a timeoutMs of 0 or more, but got ${timeoutMs}.`);
    const startedAt = performance.now();
    for (let pauseMs = 25; ; pauseMs = Math.min(pauseMs * 2, 1000)) {
      let outcome: Outcome<Result> | undefined;
      let trouble: unknown;
      try {
        outcome = await this.get<Result>(operation);
      } catch (error) {
        if (!isConnectionTrouble(error)) throw error;
        trouble = error;
      }
      if (outcome !== undefined && isAtRest(outcome)) return outcome;
      const leftMs = timeoutMs - (performance.now() - startedAt);
      if (leftMs <= 0) {
        if (trouble !== undefined) throw trouble;
        throw new OutcomeTimeoutError(operation, timeoutMs, outcome?.status ?? 'unknown to the ledger');
      }
      await pauseUntilEnd(this.events, shown(operation), Math.min(pauseMs, leftMs));
    }
  }

  /**
   * Records what became of an operation, when an outside source learns it, most likely a webhook. Works at any time:
   * while it runs (the attempt's own end is then no longer recorded), in doubt, dead. `applied(result)` completes it;
   * `notApplied()` has it run again with the attempts that are left. An open dead letter is closed. Repeating it is
   * harmless, for `notApplied()` only with `asOf`.
   *
   * Follow-ups that the handler would have enqueued afterwards are not known here: enqueue them before, under their own
   * keys.
   *
   * @throws TenantMismatchError inside a frame of another tenant, InvalidIdentityError, InvalidPayloadError, UsageError
   */
  async resolve(
    operation: OperationRef,
    verdict: EffectVerdict,
    { source, note = 'resolved from outside', asOf }: ResolveOptions,
  ): Promise<ResolveResult> {
    const identity = this.#visible(operation);
    if (typeof source !== 'string' || source.trim() === '' || source.length > 200)
      throw new UsageError(
        'resolve() needs its source, in 1 to 200 characters: { source: "gateway-webhook" }.',
      );
    const author = assertAuthor({ actor: source, note });
    if (verdict?.kind !== 'applied' && verdict?.kind !== 'not_applied')
      throw new UsageError('resolve() needs Reconciliation.applied(result) or Reconciliation.notApplied().');
    if (asOf !== undefined && !(asOf instanceof Date && !Number.isNaN(asOf.getTime())))
      throw new UsageError('resolve(): asOf must be a valid Date.');
    const resolved = await this.actions.resolveDoubt(
      identity,
      this.#reportOf(verdict, identity),
      author,
      asOf,
    );
    if (resolved === undefined) return { kind: 'unknown' };
    const { operation: found, letter, judgement } = resolved;
    if (judgement.kind === 'nothing') return { kind: judgement.reason };
    // Only an open dead letter can be a reason to refuse.
    if (judgement.kind === 'refused') throw refusal(letter?.id ?? found.operationKey, judgement.reason);
    if (judgement.kind === 'run_again' && letter !== null)
      this.events.emit(letterClosed(letter, judgement.as, source));
    else this.events.emit(reconciled(found, verdict.kind, source));
    // Also wakes a step's operation, which is on the same queue.
    await this.due.announce(found.queue);
    return { kind: 'resolved' };
  }

  #reportOf(verdict: EffectVerdict, identity: OperationIdentity): Report {
    if (verdict.kind === 'not_applied') return verdict;
    if (verdict.result === undefined) return { kind: 'applied', result: null };
    const text = toJsonText('result', verdict.result);
    if (isEncrypted(JSON.parse(text))) throw new InvalidPayloadError(looksEncrypted('The result'));
    return { kind: 'applied', result: this.encryption.encrypt(text, resultBinding(identity)) };
  }

  #visible(operation: OperationName): OperationIdentity {
    const identity = assertName(operation);
    if (this.tenants.current !== undefined) this.tenants.assert(identity.tenantId);
    return identity;
  }
}

/** The event of an operation of which an outside source has told what became of it. */
function reconciled(
  { queue, jobName, jobId, tenantId, operationKey, attempts: attempt }: LockedOperation,
  verdict: EffectVerdict['kind'],
  detail: string,
): JobEvent {
  const subject = { queue, jobName, jobId, tenantId, operationKey: shownKey(operationKey) };
  return { kind: 'reconciled', ...subject, attempt, verdict, detail };
}

/** The operation as events name it. */
function shown(operation: OperationName): OperationIdentity {
  const { tenantId, operationKey } = assertName(operation);
  return { tenantId, operationKey: shownKey(operationKey) };
}

function isAtRest({ status, reconcileDueAt }: Outcome): boolean {
  return (
    status === 'completed' || status === 'dead' || (status === 'in_doubt' && reconcileDueAt === undefined)
  );
}
