import type { AttemptRunner } from './attempt/attempt.runner.js';
import { type DeferralCause, type Ending, whyPutOff } from './attempt/ending.js';
import { type RunContext, subjectOf } from './attempt/run-context.js';
import type { Burials } from './dead-letter/burials.js';
import type { DeadLetterReason } from './dead-letter/letter.js';
import { Attempt } from './execute/attempt.js';
import type { AttemptRegistry } from './execute/attempt-registry.js';
import type { Delivery } from './intake/delivery.js';
import { EarlierStarts, type PutOffNote } from './intake/earlier-starts.js';
import { identify, type Identified, type Unidentified } from './intake/identify.js';
import { presentPayload } from './intake/present-payload.js';
import type { SharedKeys } from './intake/shared-keys.js';
import { HandBackCounter } from './observe/hand-back-counter.js';
import { checkPayload } from './intake/validate-payload.js';
import type { JobEvents } from './observe/job-events.js';
import { UsageError } from './operation/errors.js';
import { jobSubjectOf } from './operation/job-subject.js';
import type { Sealer } from './sealing/sealer.js';
import type { Signer } from './signing/signer.js';
import { settlementOf } from './settle/settlement-of.js';
import type { Settlement } from './settle/settlement.js';
import type { TenantContext } from './tenancy/tenant-context.js';
import { inDeliverySpan } from './tracing/delivery.span.js';
import type { OperationSpan } from './tracing/operation-span.js';
import type { Tracing } from './tracing/tracing.js';

/** One delivery on its way through the pipeline; `running` is set once {@link JobPipeline.attempt} was called. */
export interface DeliveryInProgress extends RunContext {
  readonly delivery: Delivery;
  running: Promise<Ending> | undefined;
}

/** Runs the application's guards and interceptors, and behind them {@link JobPipeline.attempt}. */
export type EnhancerChain = (progress: DeliveryInProgress) => Promise<unknown>;

/**
 * The way of a job, on one page: identify, enter the tenant, validate, then, behind the application's guards: claim,
 * execute, record; and in the end settle. Each step lives in the folder of its name; their order is known here, and,
 * for claim, execute and record, in `attempt/`.
 *
 * Nothing here throws to BullMQ. Whatever happens, a delivery ends in one {@link Settlement}.
 */
export class JobPipeline {
  readonly #handBacks = new HandBackCounter();

  constructor(
    private readonly tenants: TenantContext,
    private readonly attempts: AttemptRunner,
    private readonly registry: AttemptRegistry,
    private readonly burials: Burials,
    private readonly events: JobEvents,
    private readonly sealer: Sealer,
    private readonly signer: Signer,
    /** What is noted on the jobs of a queue. */
    private readonly notesOf: (queue: string) => PutOffNote,
    private readonly random: () => number,
    private readonly tracing: Tracing | undefined,
    private readonly sharedKeys: Pick<SharedKeys, 'note'>,
  ) {}

  /** From BullMQ's hand to BullMQ's hand. */
  async deliver(delivery: Delivery, chain: EnhancerChain): Promise<Settlement> {
    try {
      const identified = this.#identify(delivery);
      if (identified.kind === 'refused') return await this.burials.ofUnidentified(delivery, identified);
      this.sharedKeys.note(delivery.job, identified);
      return await this.tenants.runJob(identified.tenantId, () =>
        this.tracing === undefined
          ? this.#deliverAs(identified, delivery, chain)
          : inDeliverySpan(this.tracing, delivery, identified, (span) =>
              this.#deliverAs(identified, delivery, chain, span),
            ),
      );
    } catch (error) {
      // Postgres is out of reach, a payload unreadable, or a bug of ours: nothing is known to be recorded, so nothing is told but "later".
      return this.#defer(delivery, error);
    }
  }

  /**
   * Called by the interceptor, behind the guards: wins the right to run `handler`, runs it, records how it ended. Called
   * again for the same delivery (an interceptor that retries), it answers with the same attempt.
   */
  async attempt(progress: DeliveryInProgress, handler: () => Promise<unknown>): Promise<unknown> {
    progress.running ??= this.attempts.run(progress, handler);
    const ending = await progress.running;
    if (ending.kind === 'completed' || ending.kind === 'replayed') return ending.result;
    throw ending.error;
  }

  /** A job that BullMQ has failed without calling the processor: its workers died under it, or a child of it failed. */
  async buryUnprocessed(delivery: Delivery, reason: DeadLetterReason, error: Error): Promise<Settlement> {
    const identified = this.#identify(delivery);
    if (identified.kind === 'refused') return this.burials.ofUnidentified(delivery, identified);
    return this.tenants.runJob(identified.tenantId, async () => {
      const progress = this.#begin(delivery, identified);
      return this.#settle(progress, await this.attempts.refuse(progress, reason, error));
    });
  }

  #identify({ job, provenance, processor }: Delivery): Identified | Unidentified {
    return identify(job, provenance, processor.identify, this.sealer, this.signer);
  }

  async #deliverAs(
    identified: Identified,
    delivery: Delivery,
    chain: EnhancerChain,
    span?: OperationSpan,
  ): Promise<Settlement> {
    const { job, processor } = delivery;
    const validated = await checkPayload(processor.payloadRuleOf(job.name), job.name, identified.payload);
    if (validated.kind === 'valid') presentPayload(job, validated.payload);
    const progress = this.#begin(delivery, identified, span);
    const leave = this.registry.add(progress.attempt);
    try {
      const ending =
        validated.kind === 'invalid'
          ? await this.attempts.refuse(progress, 'payload_invalid', validated.error)
          : await this.#run(progress, chain);
      return await this.#settle(progress, ending);
    } finally {
      leave();
    }
  }

  #begin(delivery: Delivery, identified: Identified, span?: OperationSpan): DeliveryInProgress {
    const { job, cancellation } = delivery;
    const attempt = new Attempt((how) => {
      const { tenantId, operationKey } = identified;
      this.events.emit({
        kind: 'late_result_discarded',
        ...jobSubjectOf(job),
        tenantId,
        operationKey,
        how,
      });
    });
    cancellation?.addEventListener('abort', () => attempt.abandon('cancelled'), { once: true });
    return {
      delivery,
      identified,
      attempt,
      span,
      asked: jobSubjectOf(job),
      earlierStarts: this.#earlierStartsOf(delivery),
      step: undefined,
      runWithin: (context, handler) => this.attempts.run(context, handler),
      running: undefined,
    };
  }

  /** Of a job of ours nobody else has run anything: it could not have read it. */
  #earlierStartsOf({ job, provenance, processor }: Delivery): EarlierStarts | undefined {
    if (provenance.kind === 'ours' || !processor.doubtsEarlierStarts) return undefined;
    return new EarlierStarts(job, this.notesOf(job.queueName));
  }

  /**
   * What a guard, or an interceptor around ours, throws before the claim counts as a failed attempt. One that gives up
   * on a running attempt (a timeout interceptor) abandons it: how it ends is still the attempt's to say.
   */
  async #run(progress: DeliveryInProgress, chain: EnhancerChain): Promise<Ending> {
    let failure: unknown;
    let isFailed = false;
    try {
      await chain(progress);
    } catch (error) {
      failure = error;
      isFailed = true;
    }
    const { running, attempt } = progress;
    if (running !== undefined) {
      attempt.abandon('cancelled', 'an interceptor gave up on it');
      return running;
    }
    if (attempt.isOver) return this.attempts.putOff(progress, 'abandoned before it was started');
    return this.attempts.failUnstarted(progress, isFailed ? failure : new HandlerSkippedError());
  }

  async #settle(progress: DeliveryInProgress, ending: Ending): Promise<Settlement> {
    const { delivery, identified } = progress;
    progress.span?.ended(ending);
    this.#countHandBack(progress, ending);
    if (ending.kind === 'conflict') return this.burials.ofConflict(delivery, identified);
    if (ending.kind === 'expired') return this.burials.ofExpired(delivery, identified, ending.error);
    if (ending.kind === 'unstorable')
      return this.burials.ofUnidentified(delivery, { reason: 'payload_invalid', error: ending.error });
    if (ending.kind === 'deferred' && IS_UNCLAIMED.has(ending.why))
      await noteUnclaimed(progress.earlierStarts);
    const settlement = settlementOf(ending, this.random);
    // BullMQ would keep it in plain text.
    return settlement.kind === 'ack' && this.sealer.isOn ? { kind: 'ack', result: undefined } : settlement;
  }

  #countHandBack(progress: DeliveryInProgress, { kind }: Ending): void {
    if (kind === 'handed_back') {
      const times = this.#handBacks.count(progress.identified);
      this.events.emit({ kind, ...subjectOf(progress), times });
    } else if (kind !== 'deferred') this.#handBacks.forget(progress.identified);
  }

  #defer({ job }: Delivery, error: unknown): Settlement {
    const delayMs = 1000 + this.random() * 4000;
    const { reason } = whyPutOff(error);
    this.events.emit({
      kind: 'deferred',
      ...jobSubjectOf(job),
      delayMs,
      because: 'unavailable',
      reason,
    });
    return { kind: 'defer', delayMs };
  }
}

/** Deferrals after which an operation may have no row, although the job was delivered. */
const IS_UNCLAIMED: ReadonlySet<DeferralCause> = new Set(['unavailable', 'held', 'stopped'] as const);

/** Without the note the next delivery is a doubt, which is the careful side. */
async function noteUnclaimed(starts: EarlierStarts | undefined): Promise<void> {
  await starts?.noteUnclaimed().catch(() => undefined);
}

class HandlerSkippedError extends UsageError {
  constructor() {
    super(
      'An interceptor answered in place of the processor, so nothing was run. Interceptors of processors must call next.handle().',
    );
  }
}
