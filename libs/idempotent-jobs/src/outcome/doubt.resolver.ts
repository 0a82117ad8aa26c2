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
import { shownKey } from '../operation/origin.js';
import type { EffectVerdict } from '../operation/effect.js';
import { resultBinding } from '../ledger/encryption/binding.js';
import { isEncrypted, RESULT_LOOKS_ENCRYPTED } from '../ledger/encryption/encrypted-value.js';
import type { Encryption } from '../ledger/encryption/encryption.js';

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

/** What a {@link DoubtResolver} needs of the application. */
export interface DoubtResolverServices {
  readonly actions: ActionStore;
  readonly events: JobEvents;
  readonly encryption: Encryption;
  /** Called when operations of a queue have become due. */
  readonly onDue: (queue: string) => Promise<void>;
  readonly onClosed: OnClosed;
}

/** Records what an outside source, mostly a webhook, knows about an operation. */
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
    // Only an open dead letter can be a reason to refuse.
    if (judgement.kind === 'refused') throw refused(letter?.id ?? operation.operationKey, judgement.reason);
    if (judgement.kind === 'run_again' && letter !== null) onClosed(letter, judgement.as, source);
    else this.#tell(operation, verdict.kind, source);
    // Also wakes a step's operation, which is on the same queue.
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
