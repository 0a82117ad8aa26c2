import type { ActionStore } from '../dead-letters/action.store.js';
import type { OnClosed } from '../dead-letters/dead-letter.service.js';
import type { Report } from '../dead-letters/judge-letter.js';
import type { LockedOperation } from '../dead-letters/lock.js';
import { refused } from '../dead-letters/refusals.js';
import type { JobEvents } from '../events/job-events.js';
import { InvalidPayloadError, UsageError } from '../operation/errors.js';
import { assertName, type OperationIdentity, type OperationName } from '../operation/identity.js';
import { toJsonText } from '../operation/json.js';
import { assertAuthor } from '../operation/ledger-action.js';
import { shownKey } from '../operation/step-key.js';
import type { EffectVerdict } from '../operation/reconciliation.js';
import { resultBinding } from '../ledger/encryption/binding.js';
import { isEncrypted, RESULT_LOOKS_ENCRYPTED } from '../ledger/encryption/encrypted-value.js';
import type { Encryption } from '../ledger/encryption/encryption.js';

/** Who says what became of an operation. */
export interface ResolveOptions {
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
export interface ResolveResult {
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
    'resolved' | 'completed' | 'not_started' | 'under_way' | 'outdated' | 'no_doubt' | 'dead' | 'unknown';
}

/** What a settler needs of the application. */
export interface DoubtResolverServices {
  readonly actions: ActionStore;
  readonly events: JobEvents;
  readonly encryption: Encryption;
  /** Operations of that queue have become due. */
  readonly onDue: (queue: string) => Promise<void>;
  readonly onClosed: OnClosed;
}

/** Writes what somebody outside knows about an operation: a webhook, mostly. */
export class DoubtResolver {
  constructor(private readonly services: DoubtResolverServices) {}

  async resolve(
    name: OperationName,
    verdict: EffectVerdict,
    { source, note = 'resolved from outside', asOf }: ResolveOptions,
  ): Promise<ResolveResult> {
    if (typeof source !== 'string' || source.trim() === '' || source.length > 200)
      throw new UsageError(
        'resolve() needs its source, in 1 to 200 characters: { source: "gateway-webhook" }.',
      );
    const author = assertAuthor({ actor: source, note });
    if (verdict?.kind !== 'applied' && verdict?.kind !== 'not_applied')
      throw new UsageError('resolve() needs Reconciliation.applied(result) or Reconciliation.notApplied().');
    if (asOf !== undefined && !(asOf instanceof Date && !Number.isNaN(asOf.getTime())))
      throw new UsageError('resolve(): asOf must be a valid Date.');
    const identity = assertName(name);
    const { actions, onClosed, onDue } = this.services;
    const resolved = await actions.resolveDoubt(identity, this.#reportOf(verdict, identity), author, asOf);
    if (resolved === undefined) return { kind: 'unknown' };
    const { operation, letter, judgement } = resolved;
    if (judgement.kind === 'nothing') return { kind: judgement.reason };
    // Only an open letter has something against it.
    if (judgement.kind === 'refused') throw refused(letter?.id ?? operation.operationKey, judgement.reason);
    if (judgement.kind === 'run_again' && letter !== null) onClosed(letter, judgement.as, source);
    else this.#tell(operation, verdict.kind, source);
    // Also for the operation of a step, which is on the same queue.
    await onDue(operation.queue);
    return { kind: 'resolved' };
  }

  #reportOf(verdict: EffectVerdict, identity: OperationIdentity): Report {
    if (verdict.kind === 'not_applied') return verdict;
    const { encryption } = this.services;
    if (verdict.result === undefined) return { kind: 'applied', result: null };
    if (isEncrypted(verdict.result)) throw new InvalidPayloadError(RESULT_LOOKS_ENCRYPTED);
    const result = encryption.encrypt(toJsonText('result', verdict.result), resultBinding(identity));
    return { kind: 'applied', result };
  }

  #tell(
    { queue, jobName, jobId, tenantId, operationKey: key, attempts: attempt }: LockedOperation,
    verdict: EffectVerdict['kind'],
    source: string,
  ): void {
    const subject = { queue, jobName, jobId, tenantId, operationKey: shownKey(key) };
    this.services.events.emit({ kind: 'reconciled', ...subject, attempt, verdict, detail: source });
  }
}
