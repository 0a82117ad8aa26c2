import { Injectable } from '@nestjs/common';
import { AbandonedError } from '../worker/attempt/handler-run.js';
import { type CurrentOperation, surroundingOperation } from '../worker/attempt/current-operation.js';
import { UsageError } from '../operation/errors.js';
import { isA } from '../operation/thrown.js';
import { optionChecks } from '../option-checks/option-checks.js';
import { classify } from '../resilience/classify/classify.js';
import { type Failure, InDoubtError } from '../operation/failure.js';
import { signed } from '../resilience/classify/failure-sign.js';
import { frames } from '../tenancy/frames.js';
import { Dependencies } from '../resilience/dependency/dependencies.js';
import { assertDependencyKey } from '../resilience/dependency/dependency-key.js';
import type { Dependency, DependencyState, EventSubject } from '../resilience/dependency/dependency.js';
import { DependencyRejectedError } from '../resilience/dependency/rejection.js';
import { type FallbackReason, REJECTION_CAUSES } from '../operation/reasons.js';
import { isTimeout, type DependencyPermit } from '../resilience/dependency/dependency-permit.js';

/** How a call is guarded. */
export interface GuardedCallOptions<T> {
  /**
   * The key whose circuit and retry budget the call uses, for example a tenant's endpoint. 1 to 400 characters.
   * Default: in a handler whose processor has the same dependency, the handler's key; otherwise none.
   */
  readonly per?: string;
  /** How long the call may take, in ms. Default: the dependency's `timeoutMs`, or else 30,000. */
  readonly timeoutMs?: number;
  /**
   * Answers in place of the dependency. The caller gets its answer; it is counted, and makes the surrounding
   * operation's outcome `degraded`. `error` is what it stands in for.
   */
  readonly fallback?: (reason: FallbackReason, error: unknown) => T | Promise<T>;
  /**
   * When to fall back. Default: only where nothing was sent (`circuit_open`, `bulkhead_full`, `retry_budget_spent`).
   * Add `timeout` and `failed` only for calls without an effect: a call that was sent may have had its effect.
   */
  readonly fallbackOn?: readonly FallbackReason[];
}

/** A call exceeded its timeout. It is unknown whether it had its effect. */
export class DependencyTimeoutError extends InDoubtError {
  override readonly name = 'DependencyTimeoutError';
}

/**
 * Guards single calls of dependencies by circuit, bulkhead, retry budget and timeout. In a handler, a rejected call
 * defers the job without spending an attempt, if the handler lets the error pass.
 *
 * ```ts
 * const rate = await guard.call('rates', (signal) => fetchRate(signal), { fallback: () => lastKnownRate });
 * ```
 */
@Injectable()
export class DependencyGuard {
  /** @internal Injected. */
  constructor(private readonly dependencies: Dependencies) {}

  /**
   * Calls `fn`, if the dependency lets it through. `signal` is aborted at the timeout, and with the surrounding
   * operation. From an operation's second attempt on the call is a retry, and needs the retry budget. In a handler
   * whose processor has the same `dependency`, the call is covered by the handler's permit, and only its timeout is its
   * own.
   *
   * @throws DependencyRejectedError when it is not let through; nothing was sent
   * @throws DependencyTimeoutError when it takes too long; and whatever `fn` throws
   * @throws UsageError for a dependency that `forRoot({ dependencies })` does not have
   */
  async call<T>(
    name: string,
    fn: (signal: AbortSignal) => T | Promise<T>,
    options: GuardedCallOptions<T> = {},
  ): Promise<T> {
    if (typeof fn !== 'function') throw new UsageError('DependencyGuard.call() needs a function to call.');
    const whole = this.dependencies.named(name);
    const { per } = options;
    const dependency = per === undefined ? whole : whole.of(assertDependencyKey(name, per));
    if (options.timeoutMs !== undefined) assertTimer(options.timeoutMs);
    const timeoutMs = options.timeoutMs ?? dependency.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    const call = { dependency, fn, timeoutMs, operation: surroundingOperation() };
    const end = await this.#attempt(call);
    return end.kind === 'answered' ? end.value : this.#fallBack(call, end.reason, end.error, options);
  }

  /** @throws UsageError for a dependency that is not declared */
  stateOf(name: string): DependencyState {
    return this.dependencies.named(name).state;
  }

  /** The states of all dependencies, in this process. */
  get states(): readonly DependencyState[] {
    return this.dependencies.states;
  }

  /**
   * Lets nothing through in this process, for any tenant and key, until {@link resetCircuit} or {@link forceClosed}.
   *
   * @throws UsageError for a dependency that is not declared
   */
  forceOpen(name: string): void {
    this.dependencies.named(name).force('open');
  }

  /**
   * Lets everything through in this process, even if calls fail, until {@link resetCircuit} or {@link forceOpen}.
   *
   * @throws as {@link forceOpen}
   */
  forceClosed(name: string): void {
    this.dependencies.named(name).force('closed');
  }

  /** Lets each circuit decide by itself again, starting closed. @throws as {@link forceOpen} */
  resetCircuit(name: string): void {
    this.dependencies.named(name).resetCircuit();
  }

  /** Makes the call if it is let through. Its permit is released when this returns, however the call ends. */
  async #attempt<T>(call: Call<T>): Promise<End<T>> {
    const { dependency, operation, timeoutMs } = call;
    const around = letThrough(dependency);
    // The call is covered by the surrounding permit, which also learns how it went.
    if (around !== undefined && operation?.isOver !== true)
      return this.#run({ ...call, dependency: around }, undefined);
    const entry = dependency.enter(timeoutMs);
    if (entry.kind === 'rejected')
      return { kind: 'failed', reason: entry.cause, error: new DependencyRejectedError(entry) };
    try {
      const rejection = entry.begin((operation?.attempt ?? 1) > 1, subjectOf(operation));
      return rejection === undefined
        ? await this.#run(call, entry)
        : { kind: 'failed', reason: rejection.cause, error: new DependencyRejectedError(rejection) };
    } finally {
      entry.leave();
    }
  }

  async #run<T>(
    { dependency, fn, timeoutMs, operation }: Call<T>,
    permit: DependencyPermit | undefined,
  ): Promise<End<T>> {
    await operation?.mayBegin();
    operation?.noteCall();
    try {
      const onTimeout = (): Error =>
        new DependencyTimeoutError(`Dependency "${dependency.name}" took longer than its ${timeoutMs} ms.`);
      const value = await inside(dependency, () => withTimeout(fn, timeoutMs, operation?.signal, onTimeout));
      permit?.succeeded(subjectOf(operation));
      return { kind: 'answered', value };
    } catch (error) {
      const failure = knownFailureOf(dependency, error, operation?.signal);
      dependency.knownFailures.note(error, dependency, failure);
      permit?.failed(error, failure, subjectOf(operation));
      // The surrounding operation was stopped, so no caller waits for an answer.
      if (operation?.signal.aborted === true) throw error;
      return { kind: 'failed', reason: isTimeout(failure) ? 'timeout' : 'failed', error };
    }
  }

  async #fallBack<T>(
    { dependency, operation, timeoutMs }: Call<T>,
    reason: FallbackReason,
    error: unknown,
    { fallback, fallbackOn }: GuardedCallOptions<T>,
  ): Promise<T> {
    // What an earlier attempt may have done must not be done a second time by the fallback, unless the call has no
    // effect.
    const isUnsafe = fallbackOn === undefined && operation?.mayHaveHappened === true;
    if (fallback === undefined || isUnsafe || !(fallbackOn ?? REJECTION_CAUSES).includes(reason)) throw error;
    const onTimeout = (): Error =>
      new DependencyTimeoutError(
        `The fallback of dependency "${dependency.name}" took longer than its ${timeoutMs} ms.`,
      );
    const value = await withTimeout(() => fallback(reason, error), timeoutMs, operation?.signal, onTimeout);
    operation?.markDegraded(`${dependency.name}: ${reason}`);
    dependency.fellBack(reason, subjectOf(operation));
    return value;
  }
}

/** One guarded call. */
interface Call<T> {
  readonly dependency: Dependency;
  readonly fn: (signal: AbortSignal) => T | Promise<T>;
  readonly timeoutMs: number;
  readonly operation: CurrentOperation | undefined;
}

type End<T> =
  | { readonly kind: 'answered'; readonly value: T }
  | { readonly kind: 'failed'; readonly reason: FallbackReason; readonly error: unknown };

/** The surrounding permit's dependency, if it covers the call: the same key's, or any key's if the call names none. */
function letThrough(dependency: Dependency): Dependency | undefined {
  const around = (frames.getStore()?.dependencies ?? []) as readonly Dependency[];
  return around.findLast((one) => one === dependency || one.whole === dependency);
}

/** Runs `fn` so that calls of the dependency inside of it are part of this call. */
function inside<T>(dependency: Dependency, fn: () => T): T {
  const around = frames.getStore();
  const dependencies = [...(around?.dependencies ?? []), dependency];
  return frames.run({ ...(around ?? NOBODYS), dependencies }, fn);
}

/** The frame of code that runs for no tenant. */
const NOBODYS = { owner: {}, tenantId: '', operation: undefined };

/**
 * A call that was stopped by its attempt's timeout took too long; one that was stopped for another reason tells
 * nothing.
 */
function knownFailureOf(dependency: Dependency, error: unknown, signal: AbortSignal | undefined): Failure {
  const stopped: unknown = signal?.aborted === true ? signal.reason : undefined;
  if (stopped === undefined) {
    const failure = classify(error, dependency.classify);
    return isA(error, DependencyTimeoutError) ? signed('timeout', failure) : failure;
  }
  const isTooLong = isA(stopped, AbandonedError) && stopped.by === 'timeout';
  return isTooLong
    ? signed('timeout', { kind: 'in_doubt', code: 'timeout' })
    : { kind: 'unknown', code: 'cancelled' };
}

const DEFAULT_TIMEOUT_MS = 30_000;

/** @throws UsageError for what no timer can count */
function assertTimer(ms: number): void {
  const checks = optionChecks('DependencyGuard.call()');
  checks.timer('timeoutMs', ms, DEFAULT_TIMEOUT_MS);
  checks.throwIfAny((message) => new UsageError(message));
}

function subjectOf(operation: CurrentOperation | undefined): EventSubject {
  if (operation === undefined) return {};
  const { queue, jobName, tenantId, operationKey } = operation;
  return { queue, jobName, tenantId, operationKey };
}

/**
 * Calls `fn` with a signal that is aborted after `timeoutMs`, or with `outer`. A function that ignores the signal is no
 * longer waited for, either.
 */
export function withTimeout<T>(
  fn: (signal: AbortSignal) => T | Promise<T>,
  timeoutMs: number,
  outer: AbortSignal | undefined,
  onTimeout: () => Error,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const controller = new AbortController();
    const stop = (reason: unknown): void => {
      controller.abort(reason);
      end(() => reject(reason));
    };
    const timer = setTimeout(() => stop(onTimeout()), timeoutMs);
    const follow = (): void => stop(outer?.reason);
    const end = (settle: () => void): void => {
      clearTimeout(timer);
      outer?.removeEventListener('abort', follow);
      settle();
    };
    outer?.addEventListener('abort', follow, { once: true });
    if (outer?.aborted === true) return follow();
    void Promise.resolve()
      .then(() => fn(controller.signal))
      .then(
        (value) => end(() => resolve(value)),
        (error: unknown) => end(() => reject(error)),
      );
  });
}
