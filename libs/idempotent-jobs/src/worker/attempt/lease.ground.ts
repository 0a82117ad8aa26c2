import type { Claim, ClaimAnswer, ClaimRequest, VanishedAttempt } from '../../ledger/claim/claim.js';
import { type LeaseHandle, type LeaseTime, leaseTime } from '../../ledger/claim/lease-keeper.js';
import type { RequestedOperation } from '../../producer/operation.store.js';
import type { Queryable } from '../../ledger/postgres/database.js';
import type { RecordedResult } from '../../ledger/record/recorded-result.js';
import type { FailureRecord } from '../../ledger/record/outcome.store.js';
import type { Recorded } from '../../ledger/claim/exchange.js';
import type { CompletionAnswer, Ground, GroundAnswer, GroundServices, Release } from './ground.js';
import { claimRequestOf, isCall, type OperationRun } from './operation-run.js';
import { claimPatienceMs, recordPatienceMs, withRetry } from './with-retry.js';

/**
 * A lease: claimed in one commit and recorded in another, with the effect in between.
 *
 * If the process is killed between the two commits, the lease runs out. The next delivery cannot know whether the
 * effect happened, and decides by the effect's kind.
 */
export class LeaseGround implements Ground {
  /** Kept until the end is recorded: a worker that took over meanwhile must win. */
  #lease: LeaseHandle | undefined;
  readonly takesBack = false;

  constructor(
    readonly run: OperationRun,
    protected readonly services: GroundServices,
  ) {}

  claim(): Promise<GroundAnswer> {
    return this.claimAs(claimRequestOf(this.run));
  }

  protected claimAs(request: ClaimRequest): Promise<GroundAnswer> {
    const sentAt = leaseTime();
    return this.#claim(request).then((answer) =>
      answer.kind === 'absent' && this.run.identified.rowMs === undefined
        ? this.#claimUnrecorded(request).then((second) => this.#hold(second, sentAt))
        : this.#hold(answer, sentAt),
    );
  }

  /** Keeps the lease of a claim that was won. */
  #hold(answer: ClaimAnswer, sentAt: LeaseTime): ClaimAnswer {
    if (answer.kind !== 'acquired') return answer;
    const { run, services } = this;
    const { tenantId, operationKey, token } = answer.claim;
    const { leaseMs } = run.rules.claim;
    const onLost = (): void => run.handlerRun.abandon('lease_lost');
    this.#lease = services.leases.keep({ tenantId, operationKey, token, leaseMs, onLost }, sentAt);
    run.handlerRun.runUnder(this.#lease);
    return answer;
  }

  /** Claims again under the same run id when the answer was lost: the first try may have won the claim. */
  #claim(request: ClaimRequest): Promise<ClaimAnswer> {
    return withRetry(claimPatienceMs(request.rules.leaseMs), () => this.services.claims.claim(request));
  }

  /**
   * Claims an operation without a row, whose job an earlier start may have run: that start is recorded as an attempt, unless
   * it was a delivery of this library that was put off before it claimed anything.
   */
  async #claimUnrecorded(request: ClaimRequest): Promise<ClaimAnswer> {
    if (!(await this.run.earlierStarts?.wereUnclaimed())) await this.services.claims.noteUnrecorded(request);
    return this.#claim({ ...request, needsRow: false });
  }

  /** The claim's answer may have waited in the socket so long that another worker has the operation by now. */
  get isNearlyOver(): boolean {
    return this.#lease?.isNearlyOver() === true;
  }

  takeOver(claim: Claim, vanished: VanishedAttempt): Promise<void> {
    return this.services.outcomes.takeOver(claim, vanished);
  }

  open(): undefined {
    return undefined;
  }

  abandon(): undefined {
    return undefined;
  }

  complete(
    claim: Claim,
    result: RecordedResult,
    followUps: readonly RequestedOperation[],
  ): Promise<CompletionAnswer> {
    const { outcomes } = this.services;
    const rules = this.run.rules.claim;
    return this.recordWith(followUps, (connection) =>
      connection === undefined
        ? outcomes.complete(rules, claim, result)
        : outcomes.completeOn(connection, rules, claim, result),
    );
  }

  /** Records a result, in one transaction with what the handler enqueued, if it enqueued anything. */
  protected recordWith(
    followUps: readonly RequestedOperation[],
    write: (connection?: Queryable) => Promise<Recorded>,
  ): Promise<Recorded> {
    return this.#record(() => (followUps.length === 0 ? write() : this.#writeWith(followUps, write)));
  }

  async #writeWith(
    followUps: readonly RequestedOperation[],
    write: (connection: Queryable) => Promise<Recorded>,
  ): Promise<Recorded> {
    const { followUps: writer, database } = this.services;
    let tell = (): void => undefined;
    const recorded = await database.inTransaction(async (connection) => {
      const completed = await write(connection);
      if (completed === 'recorded') tell = await writer.write(connection, followUps, this.run.runId);
      return completed;
    }, 'record');
    tell();
    return recorded;
  }

  /** There is nothing to undo: the handler's effect is outside of Postgres. */
  revert(claim: Claim): Promise<GroundAnswer> {
    return Promise.resolve({ kind: 'acquired', claim });
  }

  fail(claim: Claim, record: FailureRecord): Promise<Recorded> {
    return this.#record(() => this.services.outcomes.fail(claim, record));
  }

  async release(claim: Claim, { isDoubtful = false, waitMs }: Release = {}): Promise<void> {
    const { outcomes } = this.services;
    // A claim for asking the service contains no attempt that could be taken back.
    if (claim.mustReconcile) return this.forgo();
    const released = await this.#record(() =>
      outcomes.release(claim, isDoubtful, waitMs, this.#forgetAfterMs),
    );
    // Without this note the attempt counts as vanished, and the operation only looks more dangerous than it is.
    if (released === 'lost') await outcomes.surrender(claim).catch(() => undefined);
  }

  forgo(): void {
    const { identified, runId } = this.run;
    const { tenantId, operationKey } = identified;
    const { possibleUntil } = this.services.exchange;
    this.services.unused.add({
      tenantId,
      operationKey,
      runId,
      possibleUntil,
      forgetAfterMs: this.#forgetAfterMs,
    });
  }

  leave(): undefined {
    this.#lease?.release();
  }

  /**
   * After how many ms a call that was released is forgotten: it may never be made again. Undefined when a job asks
   * for the operation.
   */
  get #forgetAfterMs(): number | undefined {
    return isCall(this.run) ? this.run.rules.claim.retentionMs : undefined;
  }

  #record<T>(write: () => Promise<T>): Promise<T> {
    return withRetry(recordPatienceMs(this.run.rules.claim.leaseMs), write);
  }
}
