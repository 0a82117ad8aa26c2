import { Inject, Injectable } from '@nestjs/common';
import { type AttemptResult, causeOf, type Deferred, errorOf } from '../worker/attempt/attempt-result.js';
import type { OperationRun } from '../worker/attempt/operation-run.js';
import { OperationRunner } from '../worker/attempt/operation.runner.js';
import { Dependencies } from '../resilience/dependency/dependencies.js';
import type { ClaimRules } from '../ledger/claim/claim.js';
import { HandlerRun } from '../worker/attempt/handler-run.js';
import { RunningHandlers } from '../worker/attempt/running-handlers.js';
import {
  assertNoTransactionAround,
  currentOperation,
  surroundingOperation,
  type CurrentOperation,
} from '../worker/attempt/current-operation.js';
import { assertIdentity, identityKeyOf, type OperationIdentity, runIds } from '../operation/identity.js';
import type { OperationRules } from '../worker/rules/operation-rules.js';
import { JobEvents } from '../events/job-events.js';
import { CALLS } from '../operation/origin.js';
import {
  IdempotentJobsError,
  OperationBusyError,
  OperationInDoubtError,
  UsageError,
} from '../operation/errors.js';
import { canonicalRequest, fingerprintOf, toJsonText } from '../operation/json.js';
import { messageOf } from '../operation/thrown.js';
import { PLAIN } from '../worker/identify/identify.js';
import { pauseUntilEnd } from '../outcome/pause-until-end.js';
import { RESOLVED_OPTIONS } from '../option-checks/resolved-options.token.js';
import { frames } from '../tenancy/frames.js';
import { TenantContext } from '../tenancy/tenant-context.js';
import { identityAttributes } from '../tracing/attributes.js';
import { type OperationSpan, openSpan } from '../worker/attempt/operation-span.js';
import type { Tracing } from '../tracing/tracing.js';
import { type CallDefaults, type CallOptions, DEFAULT_WAIT_MS, resolveCallOptions } from './call.options.js';

/**
 * Guards any call like a processor guards its handler, closest to the side effect: in HTTP handlers, in services, in
 * jobs. A call is an operation of its own, `(tenant, key)`, in the same ledger.
 *
 * The library never repeats a call by itself: a call that failed without an effect, or with one that may be repeated,
 * is run by the next caller with the same key.
 */
@Injectable()
export class IdempotencyService {
  readonly #claimRules = new Map<string, ClaimRules>();
  readonly #nextRunId = runIds();

  /** @internal Injected. */
  constructor(
    private readonly tenants: TenantContext,
    private readonly events: JobEvents,
    private readonly running: RunningHandlers,
    private readonly operations: OperationRunner,
    private readonly dependencies: Dependencies,
    @Inject(RESOLVED_OPTIONS)
    private readonly options: CallDefaults & { readonly tracing: Tracing | undefined },
  ) {}

  /**
   * Calls `fn` once for the tenant and key, and answers every other caller with what it returned (as JSON), for
   * `retention.completedMs`. Of several callers at the same time, in any processes, one runs it and the others wait.
   *
   * Rejects with what `fn` threw. `fn` gets its operation, as does `currentOperation()` inside of it: key, token,
   * signal, and for effect `transactional` the transaction that the outcome commits with.
   *
   * @throws OperationBusyError if another caller has not ended within `waitMs`; it says when to come again
   * @throws DependencyRejectedError if a dependency let nothing through, and nothing was sent
   * @throws OperationInDoubtError if it is unknown whether the effect of an earlier call happened
   * @throws OperationConflictError if the key belongs to another request; OperationDeadError if it was given up
   * @throws TenantMissingError, TenantMismatchError, InvalidIdentityError, InvalidPayloadError
   * @throws UsageError inside of a call with the same key, which would wait for itself, and for bad input
   */
  async once<T>(
    key: string,
    fn: (operation: CurrentOperation) => Promise<T> | T,
    options: CallOptions = {},
  ): Promise<T> {
    if (typeof fn !== 'function') throw new UsageError('once() needs a function to call.');
    if (options === null || typeof options !== 'object')
      throw new UsageError('once(): options must be an object.');
    const identity = assertIdentity({
      tenantId: this.tenants.assert(options.tenantId),
      operationKey: key,
    });
    this.#assertNotInside(identity);
    const rules = this.#rulesOf(options);
    assertNoTransactionAround(rules.effect);
    const { tracing } = this.options;
    if (tracing === undefined) return this.#untilEnded(identity, fn, rules, options);
    const attributes = { ...identityAttributes(identity), 'idempotent_jobs.effect': rules.effect };
    return openSpan(tracing, 'call', attributes, (span) =>
      this.#untilEnded(identity, fn, rules, options, span),
    );
  }

  async #untilEnded<T>(
    identity: OperationIdentity,
    fn: (operation: CurrentOperation) => Promise<T> | T,
    rules: OperationRules,
    options: CallOptions,
    span?: OperationSpan,
  ): Promise<T> {
    const canonical = requestOf(identity, options.input);
    const giveUpAt = performance.now() + (options.waitMs ?? DEFAULT_WAIT_MS);
    for (let pauseMs = 25; ; pauseMs = Math.min(pauseMs * 2, 500)) {
      const result = await this.#run(identity, canonical, rules, fn, options, span);
      const leftMs = giveUpAt - performance.now();
      const isLast = result.kind !== 'deferred' || causeOf(result.deferral) !== 'busy' || leftMs <= 0;
      if (isLast) span?.ended(result);
      if (result.kind !== 'deferred') return answer(result, identity) as T;
      this.#throwUnlessWorthWaiting(identity, result);
      if (leftMs <= 0) {
        if (causeOf(result.deferral) === 'busy') this.#tellBusy(identity, result);
        throw new OperationBusyError(identity, result.delayMs);
      }
      await pauseUntilEnd(this.events, identity, Math.min(pauseMs, leftMs));
    }
  }

  /** Throws for deferrals that do not end by waiting for another caller. */
  #throwUnlessWorthWaiting(identity: OperationIdentity, result: Deferred): void {
    switch (causeOf(result.deferral)) {
      case 'unavailable':
        throw new LedgerUnavailableError(identity, errorOf(result));
      case 'rejected':
        throw errorOf(result);
      case 'waiting':
        throw new OperationBusyError(identity, result.delayMs);
      case 'not_yet':
        throw new OperationInDoubtError(identity, result.delayMs);
      case 'busy':
      case 'fenced':
      case 'stopped':
    }
  }

  async #run(
    identity: OperationIdentity,
    canonical: string,
    rules: OperationRules,
    fn: (operation: CurrentOperation) => unknown,
    { reconcile }: CallOptions,
    span: OperationSpan | undefined,
  ): Promise<AttemptResult> {
    const call: OperationRun = {
      runId: this.#nextRunId(),
      rules,
      subject: CALL,
      identified: {
        kind: 'identified',
        ...identity,
        canonical,
        fingerprint: fingerprintOf(canonical),
        payload: undefined,
        availableAt: Date.now(),
        ...PLAIN,
      },
      job: undefined,
      earlierStarts: undefined,
      handlerRun: new HandlerRun(() => undefined),
      span,
      step: undefined,
      handsBack: undefined,
      reconcile,
      fallback: undefined,
    };
    await surroundingOperation()?.mayBegin();
    // The call ends when the operation that makes it ends.
    const forget = call.handlerRun.endWith(surroundingOperation()?.signal);
    this.running.add(call.handlerRun);
    try {
      const around: CallAround = { by: this, key: identityKeyOf(identity), run: call.handlerRun };
      return await this.tenants.runCall(identity.tenantId, around, () =>
        this.operations.run(call, async () => fn(currentOperation())),
      );
    } finally {
      forget();
      this.running.remove(call.handlerRun);
    }
  }

  /**
   * Refuses a call inside of a call with the same key: the inner one would wait for the outer one for ever. @throws
   * UsageError
   */
  #assertNotInside(identity: OperationIdentity): void {
    const around = frames.getStore()?.calls as readonly CallAround[] | undefined;
    if (around === undefined) return;
    const key = identityKeyOf(identity);
    // Code that a call left running may call again once the call is over: it gets the result.
    if (!around.some((call) => call.by === this && call.key === key && !call.run.isOver)) return;
    throw new UsageError(
      `once("${identity.operationKey}") was called inside of itself and would wait for itself. Give the inner call a key of its own, or call its function without once().`,
    );
  }

  /** Emits the one event of a call that waited for another caller, when it gives up. */
  #tellBusy(identity: OperationIdentity, { delayMs, detail }: Deferred): void {
    const { tenantId, operationKey } = identity;
    this.events.emit({
      kind: 'deferred',
      ...CALL,
      tenantId,
      operationKey,
      delayMs,
      cause: 'busy',
      detail,
    });
  }

  /** All calls with the same options share one object of claim rules, so that their claims share statements. */
  #rulesOf(options: CallOptions): OperationRules {
    const rules = resolveCallOptions(options, this.options, this.dependencies.knownFailureOf);
    const { effect, repeatableMs, canReconcile } = rules.claim;
    const name = JSON.stringify([effect, repeatableMs, canReconcile]);
    const claim = this.#claimRules.get(name) ?? rules.claim;
    if (this.#claimRules.size < MAX_KNOWN) this.#claimRules.set(name, claim);
    return { ...rules, claim };
  }
}

/** How events name a call. */
const CALL = { queue: CALLS, jobName: 'call', jobId: '' } as const;

/** Options are mostly written in code. Options made from data, beyond this number, share no statements. */
const MAX_KNOWN = 1000;

/** A call that surrounds the code, as its frame knows it. */
interface CallAround {
  readonly by: IdempotencyService;
  readonly key: string;
  readonly run: HandlerRun;
}

function requestOf(identity: OperationIdentity, input: unknown): string {
  const known = input === undefined ? null : (JSON.parse(toJsonText('input', input)) as unknown);
  return canonicalRequest(identity, 'call', known);
}

function answer(result: Exclude<AttemptResult, { kind: 'deferred' }>, identity: OperationIdentity): unknown {
  switch (result.kind) {
    case 'completed':
    case 'replayed':
      if (result.degraded !== undefined) surroundingOperation()?.markDegraded(result.degraded);
      return result.result;
    case 'failed':
      if (result.nextStep.status === 'in_doubt')
        throw new OperationInDoubtError(identity, result.nextStep.reconcileInMs, result.error);
      throw result.error;
    case 'refused':
    case 'handed_back':
      throw result.error;
    default:
      return result satisfies never;
  }
}

/** Postgres is out of reach. The next call finds out whether this one ran and whether its outcome was kept. */
class LedgerUnavailableError extends IdempotentJobsError {
  constructor({ tenantId, operationKey }: OperationIdentity, cause: Error) {
    super(
      'LEDGER_UNAVAILABLE',
      `The ledger could not be asked about operation "${operationKey}" of tenant "${tenantId}": ${messageOf(cause)}. Call again with the same key.`,
      { cause, data: { tenantId, operationKey } },
    );
  }
}
