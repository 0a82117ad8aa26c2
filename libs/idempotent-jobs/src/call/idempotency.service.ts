import type { Ending } from '../attempt/ending.js';
import type { RunContext } from '../attempt/run-context.js';
import type { ClaimTerms } from '../claim/claim.js';
import { Attempt } from '../execute/attempt.js';
import type { AttemptRegistry } from '../execute/attempt-registry.js';
import {
  assertNoTransactionAround,
  currentOperation,
  surroundingOperation,
  type CurrentOperation,
} from '../execute/current-operation.js';
import type { ProcessorSettings } from '../intake/processor.settings.js';
import type { JobEvents } from '../observe/job-events.js';
import { CALLS } from '../operation/calls.js';
import {
  IdempotentJobsError,
  OperationBusyError,
  OperationInDoubtError,
  UsageError,
} from '../operation/errors.js';
import { canonicalRequest, fingerprintOf } from '../operation/fingerprint.js';
import { assertIdentity, identityKeyOf, type OperationIdentity } from '../operation/identity.js';
import { messageOf } from '../operation/message-of.js';
import { toJsonText } from '../operation/json.js';
import { pauseUntilEnd } from '../outcome/pause-until-end.js';
import { frames } from '../tenancy/frames.js';
import type { TenantContext } from '../tenancy/tenant-context.js';
import { identityAttributes } from '../tracing/attributes.js';
import { type OperationSpan, openSpan } from '../tracing/operation-span.js';
import type { Tracing } from '../tracing/tracing.js';
import { type CallDefaults, type CallOptions, DEFAULT_WAIT_MS, resolveCallOptions } from './call.options.js';

/** What the service needs of the application it belongs to. */
export interface IdempotencyServices extends CallDefaults {
  readonly tenants: TenantContext;
  readonly events: JobEvents;
  /** Those that run in this process, for its shutdown. */
  readonly attempts: AttemptRegistry;
  /** Claims, runs and records. Never rejects. */
  readonly run: (context: RunContext, handler: () => Promise<unknown>) => Promise<Ending>;
  readonly nextWorkerId: () => string;
  readonly tracing: Tracing | undefined;
}

/**
 * The guard of processors for any call, closest to its side effect: in HTTP handlers, in services, in jobs. A call is an
 * operation of its own, `(tenant, key)`, in the same ledger.
 *
 * Nothing runs a call again by itself: what failed without an effect, or with one that may be repeated, is run by the next
 * caller with the same key.
 */
export class IdempotencyService {
  readonly #terms = new Map<string, ClaimTerms>();

  /** @internal Injected. */
  constructor(private readonly services: IdempotencyServices) {}

  /**
   * Calls `fn` once for the tenant and key, and answers every other caller with what it returned (as JSON), for
   * `retention.completedMs`. Of callers at the same time, in whatever process, one runs it and the others wait.
   *
   * Rejects with what `fn` threw. `fn` gets its operation, as does `currentOperation()` inside of it: key, token, signal,
   * and for effect `transactional` the transaction that the outcome commits with.
   *
   * @throws OperationBusyError if another caller has not ended within `waitMs`; it says when to come again
   * @throws DependencyHeldError if a dependency let nothing through, and nothing was sent
   * @throws OperationInDoubtError if nobody knows whether the effect of an earlier call happened
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
      tenantId: this.services.tenants.assert(options.tenantId),
      operationKey: key,
    });
    this.#assertNotInside(identity);
    const settings = this.#settingsOf(options);
    assertNoTransactionAround(settings.effect);
    const { tracing } = this.services;
    if (tracing === undefined) return this.#untilEnded(identity, fn, settings, options);
    const attributes = { ...identityAttributes(identity), 'idempotent_jobs.effect': settings.effect };
    return openSpan(tracing, 'call', attributes, (span) =>
      this.#untilEnded(identity, fn, settings, options, span),
    );
  }

  async #untilEnded<T>(
    identity: OperationIdentity,
    fn: (operation: CurrentOperation) => Promise<T> | T,
    settings: ProcessorSettings,
    options: CallOptions,
    span?: OperationSpan,
  ): Promise<T> {
    const canonical = requestOf(identity, options.input);
    const giveUpAt = performance.now() + (options.waitMs ?? DEFAULT_WAIT_MS);
    for (let pauseMs = 25; ; pauseMs = Math.min(pauseMs * 2, 500)) {
      const ending = await this.#run(identity, canonical, settings, fn, options, span);
      const leftMs = giveUpAt - performance.now();
      const isLast = ending.kind !== 'deferred' || ending.why !== 'busy' || leftMs <= 0;
      if (isLast) span?.ended(ending);
      if (ending.kind !== 'deferred') return answer(ending, identity) as T;
      if (ending.why === 'unavailable') throw new LedgerUnavailableError(identity, ending.error);
      if (ending.why === 'held') throw ending.error;
      if (ending.why === 'waiting') throw new OperationBusyError(identity, ending.delayMs);
      if (ending.why === 'not_yet') throw new OperationInDoubtError(identity, ending.delayMs);
      if (leftMs <= 0) {
        if (ending.why === 'busy') this.#tellBusy(identity, ending);
        throw new OperationBusyError(identity, ending.delayMs);
      }
      await pauseUntilEnd(this.services.events, identity, Math.min(pauseMs, leftMs));
    }
  }

  async #run(
    identity: OperationIdentity,
    canonical: string,
    settings: ProcessorSettings,
    fn: (operation: CurrentOperation) => unknown,
    { reconcile }: CallOptions,
    span: OperationSpan | undefined,
  ): Promise<Ending> {
    const { tenants, run, nextWorkerId } = this.services;
    const context: RunContext = {
      delivery: {
        job: undefined,
        handsBack: undefined,
        processor: settings,
        reconcile,
        fallback: undefined,
        workerId: nextWorkerId(),
      },
      asked: CALL,
      identified: {
        kind: 'identified',
        ...identity,
        canonical,
        fingerprint: fingerprintOf(canonical),
        payload: undefined,
        availableAt: Date.now(),
        rowMs: undefined,
        deadline: undefined,
        trace: undefined,
        parentTrace: undefined,
      },
      attempt: new Attempt(() => undefined),
      span,
      step: undefined,
      runWithin: run,
    };
    await surroundingOperation()?.mayBegin();
    const forget = followSurrounding(context.attempt);
    const leave = this.services.attempts.add(context.attempt);
    try {
      const call: CallAround = { by: this, key: identityKeyOf(identity), attempt: context.attempt };
      return await tenants.runCall(identity.tenantId, call, () =>
        run(context, async () => fn(currentOperation())),
      );
    } finally {
      forget();
      leave();
    }
  }

  /** The inner one would wait for the outer one, which waits for it. @throws UsageError */
  #assertNotInside(identity: OperationIdentity): void {
    const around = frames.getStore()?.calls as readonly CallAround[] | undefined;
    if (around === undefined) return;
    const key = identityKeyOf(identity);
    // What a call has left behind may call again once it is over: it is answered with the result.
    if (!around.some((call) => call.by === this && call.key === key && !call.attempt.isOver)) return;
    throw new UsageError(
      `once("${identity.operationKey}") was called inside of itself and would wait for itself. Give the inner call a key of its own, or call its function without once().`,
    );
  }

  /** Of all the looks at an operation that somebody else runs, the last one. */
  #tellBusy(identity: OperationIdentity, { delayMs, reason }: Extract<Ending, { kind: 'deferred' }>): void {
    const { tenantId, operationKey } = identity;
    this.services.events.emit({
      kind: 'deferred',
      ...CALL,
      tenantId,
      operationKey,
      delayMs,
      because: 'busy',
      reason,
    });
  }

  /** The terms are one object for all calls that are guarded alike: their claims share statements. */
  #settingsOf(options: CallOptions): ProcessorSettings {
    const settings = resolveCallOptions(options, this.services);
    const { effect, repeatableMs, asks } = settings.terms;
    const name = JSON.stringify([effect, repeatableMs, asks]);
    const terms = this.#terms.get(name) ?? settings.terms;
    if (this.#terms.size < MAX_KNOWN) this.#terms.set(name, terms);
    return { ...settings, terms };
  }
}

/** What events call a call. */
const CALL = { queue: CALLS, jobName: 'call', jobId: '' } as const;

/** Options are written in code; whoever makes them from data shares no statements. */
const MAX_KNOWN = 1000;

/** A call that runs around the code, as its frame knows it. */
interface CallAround {
  readonly by: IdempotencyService;
  readonly key: string;
  readonly attempt: Attempt;
}

/** Ends the call with the operation that it is made in. */
function followSurrounding(attempt: Attempt): () => void {
  const signal = surroundingOperation()?.signal;
  const stop = (): void => attempt.abandon('cancelled');
  if (signal?.aborted) stop();
  signal?.addEventListener('abort', stop, { once: true });
  return () => signal?.removeEventListener('abort', stop);
}

function requestOf(identity: OperationIdentity, input: unknown): string {
  const known = input === undefined ? null : (JSON.parse(toJsonText('input', input)) as unknown);
  return canonicalRequest(identity, 'call', known);
}

function answer(ending: Exclude<Ending, { kind: 'deferred' }>, identity: OperationIdentity): unknown {
  switch (ending.kind) {
    case 'completed':
    case 'replayed':
      if (ending.degraded !== undefined) surroundingOperation()?.markDegraded(ending.degraded);
      return ending.result;
    case 'failed':
      if (ending.decision.status === 'in_doubt')
        throw new OperationInDoubtError(identity, ending.decision.askInMs, ending.error);
      throw ending.error;
    case 'in_doubt':
    case 'conflict':
    case 'dead':
    case 'expired':
    case 'unstorable':
    case 'handed_back':
      throw ending.error;
    default:
      return ending satisfies never;
  }
}

/** Postgres is out of reach: whether the call was made, or its outcome kept, the next one finds out. */
class LedgerUnavailableError extends IdempotentJobsError {
  constructor({ tenantId, operationKey }: OperationIdentity, cause: Error) {
    super(
      'LEDGER_UNAVAILABLE',
      `The ledger could not be asked about operation "${operationKey}" of tenant "${tenantId}": ${messageOf(cause)}. Call again with the same key.`,
      { cause, data: { tenantId, operationKey } },
    );
  }
}
