import { Inject, Injectable, Optional } from '@nestjs/common';
import type { Job } from 'bullmq';
import { OperationRunner } from './attempt/operation.runner.js';
import { type AttemptResult, causeOf, unavailability } from './attempt/attempt-result.js';
import type { DeferralCause, DeadLetterReason } from '../operation/reasons.js';
import { type HandlerMeans, type OperationRun, subjectOf } from './attempt/operation-run.js';
import { BundledJobView } from '../bullmq/bundled-job.js';
import { watchMoves, HandBackCounter } from '../bullmq/hand-back.js';
import { DeadLetterWriter } from './acknowledge/dead-letter.writer.js';
import { HandlerRun } from './attempt/handler-run.js';
import { RunningHandlers } from './attempt/running-handlers.js';
import { type Delivery, type ReceivedJob, inDeliverySpan, presentPayload } from './intake/delivery.js';
import { EarlierStarts } from './identify/earlier-starts.js';
import { GuardedRun } from './intake/idempotency.interceptor.js';
import { type Identified, JobIdentifier, type Unidentified } from './identify/identify.js';
import { QueueRegistry } from '../producer/queue-registry.js';
import { SharedKeys } from './intake/shared-keys.js';
import { checkPayload } from './rules/validate-payload.js';
import { JobEvents } from '../events/job-events.js';
import { UsageError } from '../operation/errors.js';
import { messageOf } from '../operation/thrown.js';
import { jobSubjectOf } from '../operation/job.js';
import { Encryption } from '../ledger/encryption/encryption.js';
import { RESOLVED_OPTIONS } from '../option-checks/resolved-options.token.js';
import { type Ack, ackOf, acknowledge } from './acknowledge/acknowledge.js';
import { TenantContext } from '../tenancy/tenant-context.js';
import type { OperationSpan } from './attempt/operation-span.js';
import type { Tracing } from '../tracing/tracing.js';

/**
 * The way of a job through a worker: identify it, enter its tenant, validate the payload, pass the guards, run the
 * operation, acknowledge. `host/` receives the job from BullMQ and calls this.
 *
 * Three classes know the order of the steps in docs/architecture.md, and each calls the next one: this class has steps 3, 4
 * and 9, {@link OperationRunner} has step 5 (circuit, bulkhead, peek, fallback), and `attempt/attempt.runner.ts` has steps 6
 * to 8.
 *
 * Every delivery ends in exactly one {@link Ack}.
 */
@Injectable()
export class JobPipeline {
  readonly #handBacks = new HandBackCounter();

  constructor(
    private readonly tenants: TenantContext,
    private readonly operations: OperationRunner,
    private readonly running: RunningHandlers,
    private readonly deadLetterWriter: DeadLetterWriter,
    private readonly queues: QueueRegistry,
    private readonly sharedKeys: SharedKeys,
    private readonly events: JobEvents,
    private readonly encryption: Encryption,
    private readonly identifier: JobIdentifier,
    @Inject(RESOLVED_OPTIONS) private readonly options: { readonly tracing: Tracing | undefined },
    @Optional() private readonly random: () => number = Math.random,
  ) {}

  /** Handles one delivery of BullMQ. Returns or throws what BullMQ understands. */
  handle(delivery: Delivery): Promise<unknown> {
    const { job, token } = delivery;
    return this.deliver(delivery).then((ack) => acknowledge(job, token, ack));
  }

  /** As {@link handle}, without telling BullMQ. Never rejects. */
  deliver(delivery: Delivery): Promise<Ack> {
    watchMoves(delivery.job);
    try {
      const identified = this.#identify(delivery);
      const ended =
        identified.kind === 'refused'
          ? this.deadLetterWriter.ofUnidentified(delivery, identified)
          : this.#enterTenant(identified, delivery);
      return ended.catch((error: unknown) => this.#defer(delivery, error));
    } catch (error) {
      return Promise.resolve(this.#defer(delivery, error));
    }
  }

  #enterTenant(identified: Identified, delivery: Delivery): Promise<Ack> {
    const { tracing } = this.options;
    this.sharedKeys.note(delivery.job, identified);
    return this.tenants.runJob(identified.tenantId, () =>
      tracing === undefined
        ? this.#deliverAs(identified, delivery, undefined)
        : inDeliverySpan(tracing, delivery, identified, (span) =>
            this.#deliverAs(identified, delivery, span),
          ),
    );
  }

  async #deliverAs(
    identified: Identified,
    delivery: Delivery,
    span: OperationSpan | undefined,
  ): Promise<Ack> {
    const { job, rules } = delivery;
    const run = this.#runOf(delivery, identified, span);
    this.running.add(run.handlerRun, job);
    try {
      const checking = checkPayload(rules.payloadRuleOf(job.name), job.name, identified.payload);
      const validated = checking instanceof Promise ? await checking : checking;
      if (validated.kind === 'valid') presentPayload(job, validated.payload);
      const result =
        validated.kind === 'invalid'
          ? await this.operations.refuse(run, 'payload_invalid', validated.error)
          : await this.#attempt(run, delivery);
      const ack = this.#ackOf(run, delivery, result);
      return ack instanceof Promise ? await ack : ack;
    } finally {
      this.running.remove(run.handlerRun);
    }
  }

  #attempt(run: OperationRun, { job, handler, guarded }: Delivery): Promise<AttemptResult> {
    return guarded === undefined
      ? this.operations.run(run, () => handler(run.handlerRun))
      : this.#attemptGuarded(run, job, guarded);
  }

  /**
   * An error that a guard, or an interceptor around the library's own, throws before the claim counts as a failed
   * attempt. An interceptor that gives up on a running attempt (a timeout interceptor, for example) abandons it: the
   * attempt itself still decides how it ends.
   */
  async #attemptGuarded(
    run: OperationRun,
    job: Job,
    guarded: NonNullable<Delivery['guarded']>,
  ): Promise<AttemptResult> {
    const { operations } = this;
    const { handlerRun } = run;
    const guardedRun = new GuardedRun(job, (behindGuards) => operations.run(run, behindGuards));
    guardedRun.enter();
    const thrown = await thrownBy(() => handlerRun.follow(guarded(handlerRun)));
    if (guardedRun.result !== undefined) {
      // The ordinary way: the handler has ended, and this does nothing. An interceptor may also have given up on one that
      // still runs.
      handlerRun.abandon('cancelled', 'an interceptor gave up on it');
      return guardedRun.result;
    }
    if (handlerRun.isOver) return operations.defer(run, 'abandoned before it was started');
    return operations.failUnstarted(run, thrown === undefined ? new HandlerSkippedError() : thrown.error);
  }

  /**
   * Records a job that BullMQ failed without calling the processor: its workers died under it, or one of its children
   * failed.
   */
  async writeUnprocessed(received: ReceivedJob, reason: DeadLetterReason, error: Error): Promise<void> {
    const identified = this.#identify(received);
    if (identified.kind === 'refused') {
      await this.deadLetterWriter.ofUnidentified(received, identified);
      return;
    }
    await this.tenants.runJob(identified.tenantId, async () => {
      const run = this.#runOf({ ...received, ...NO_MEANS }, identified, undefined);
      await this.#ackOf(run, received, await this.operations.refuse(run, reason, error));
    });
  }

  /** Only the library makes bundles, so whatever else is in one was made up, and no rule of the processor names it. */
  #identify({ job, provenance, rules }: ReceivedJob): Identified | Unidentified {
    const rule = job instanceof BundledJobView ? undefined : rules.identify;
    return this.identifier.identify(job, provenance, rule);
  }

  #runOf(
    received: ReceivedJob & HandlerMeans,
    identified: Identified,
    span: OperationSpan | undefined,
  ): OperationRun {
    const { job, rules, runId, handsBack, reconcile, fallback } = received;
    const subject = jobSubjectOf(job);
    const { tenantId, operationKey } = identified;
    const onLate = (how: 'returned' | 'threw'): void =>
      this.events.emit({ kind: 'late_result_discarded', ...subject, tenantId, operationKey, how });
    return {
      runId,
      rules,
      subject,
      identified,
      job,
      earlierStarts: this.#earlierStartsOf(received),
      handlerRun: new HandlerRun(onLate),
      span,
      step: undefined,
      handsBack,
      reconcile,
      fallback,
    };
  }

  /**
   * Undefined when earlier starts do not matter. Jobs of `IdempotentQueue` cannot have run without the library, which
   * alone can read them.
   */
  #earlierStartsOf({ job, provenance, rules }: ReceivedJob): EarlierStarts | undefined {
    if (provenance.kind === 'ours' || !rules.doubtsEarlierStarts) return undefined;
    return new EarlierStarts(job, this.queues.contentsOf(job.queueName));
  }

  #ackOf(run: OperationRun, received: ReceivedJob, result: AttemptResult): Ack | Promise<Ack> {
    run.span?.ended(result);
    this.#countHandBack(run, result);
    if (result.kind === 'refused') {
      const { reason, error } = result;
      if (reason === 'conflict') return this.deadLetterWriter.ofConflict(received, run.identified);
      if (reason === 'expired') return this.deadLetterWriter.ofExpired(received, run.identified, error);
      if (reason === 'unstorable')
        return this.deadLetterWriter.ofUnidentified(received, { reason: 'payload_invalid', error });
    }
    // A result that the ledger encrypts must not stand in BullMQ in plain text.
    if (this.encryption.isOn && (result.kind === 'completed' || result.kind === 'replayed')) return DONE;
    const ack = ackOf(result, this.random);
    return result.kind === 'deferred' && IS_UNCLAIMED.has(causeOf(result.deferral))
      ? noteUnclaimed(run.earlierStarts).then(() => ack)
      : ack;
  }

  #countHandBack(run: OperationRun, { kind }: AttemptResult): void {
    if (kind === 'handed_back') {
      const times = this.#handBacks.count(run.identified);
      this.events.emit({ kind, ...subjectOf(run), times });
    } else if (kind !== 'deferred') this.#handBacks.forget(run.identified);
  }

  /**
   * Postgres is out of reach, the payload is unreadable, or this library has a bug. Nothing is known to be recorded, so BullMQ
   * is only told to deliver the job again later.
   */
  #defer({ job }: Delivery, error: unknown): Ack {
    const delayMs = 1000 + this.random() * 4000;
    const detail = `${unavailability(error)}: ${messageOf(error)}`;
    this.events.emit({ kind: 'deferred', ...jobSubjectOf(job), delayMs, cause: 'unavailable', detail });
    return { kind: 'defer', delayMs };
  }
}

const DONE: Ack = { kind: 'done', result: undefined };

/** The means of a job that is never run: only its dead letter is written. */
const NO_MEANS = { handsBack: undefined, reconcile: undefined, fallback: undefined };

/** Deferrals after which an operation may have no row, although its job was delivered. */
const IS_UNCLAIMED: ReadonlySet<DeferralCause> = new Set(['unavailable', 'rejected', 'stopped'] as const);

/** A failure to write the note is ignored: without it the next delivery counts as doubtful, which is the careful side. */
async function noteUnclaimed(starts: EarlierStarts | undefined): Promise<void> {
  await starts?.noteUnclaimed().catch(() => undefined);
}

async function thrownBy(work: () => Promise<unknown>): Promise<{ readonly error: unknown } | undefined> {
  try {
    await work();
    return undefined;
  } catch (error) {
    return { error };
  }
}

class HandlerSkippedError extends UsageError {
  constructor() {
    super(
      'An interceptor answered in place of the processor, so nothing was run. Interceptors of processors must call next.handle().',
    );
  }
}
