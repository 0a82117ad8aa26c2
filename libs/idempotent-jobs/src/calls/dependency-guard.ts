import { Injectable } from '@nestjs/common';
import { AbandonedError } from '../worker/attempt/handler-run.js';
import { type CurrentOperation, surroundingOperation } from '../worker/attempt/current-operation.js';
import { UsageError } from '../operation/errors.js';
import { isA } from '../operation/thrown.js';
import { optionChecks } from '../options/option-checks.js';
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
import { withTimeout } from './with-timeout.js';

/** How a call is guarded. */
export interface GuardedCallOptions<T> {
  /**
   * The key whose circuit and retry budget the call has: the endpoint of a tenant, for example. 1 to 400 characters.
   * Default: in a handler whose processor has the same dependency, that of the handler; else none.
   */
  readonly per?: string;
  /** How long the call may take, in ms. Default: the dependency's `timeoutMs`, else 30,000. */
  readonly timeoutMs?: number;
  /**
   * Answers in place of the dependency; what it answers is given to the caller, counted, and makes the surrounding
   * operation's outcome `degraded`. `error`: what it stands in for.
   */
  readonly fallback?: (reason: FallbackReason, error: unknown) => T | Promise<T>;
  /**
   * When to fall back. Default: only where nothing was sent (`circuit_open`, `bulkhead_full`, `retry_budget_spent`). Add
   * `timeout` and `failed` for calls without an effect: one that was sent may have had its effect.
   */
  readonly fallbackOn?: readonly FallbackReason[];
}

/** A call that took longer than it may. Whether it had its effect, nobody knows. */
export class DependencyTimeoutError extends InDoubtError {
  override readonly name = 'DependencyTimeoutError';
}

/**
 * Guards single calls of dependencies: by circuit, bulkhead, retry budget and timeout. In a handler, a call that is not let
 * through puts the operation off without spending an attempt, if the handler lets the error pass.
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
   * Calls `fn`, if the dependency lets it through. `signal` is aborted at the timeout, and with the surrounding operation.
   * In an operation's second attempt and later the call is a retry, and needs the retry budget. In a handler whose
   * processor has the same `dependency`, the call is part of what was let through, and only its timeout is its own.
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

  /** Of all dependencies, in this process. */
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
   * Lets everything through in this process, whatever becomes of it, until {@link resetCircuit} or {@link forceOpen}.
   *
   * @throws as {@link forceOpen}
   */
  forceClosed(name: string): void {
    this.dependencies.named(name).force('closed');
  }

  /** Lets each circuit decide by itself again, from closed. @throws as {@link forceOpen} */
  resetCircuit(name: string): void {
    this.dependencies.named(name).resetCircuit();
  }

  /** The call, let through or not. Whatever becomes of it, its place is free again when this returns. */
  async #attempt<T>(call: Call<T>): Promise<End<T>> {
    const { dependency, operation, timeoutMs } = call;
    const around = letThrough(dependency);
    // Part of what was let through already, and heard of there.
    if (around !== undefined && operation?.isOver !== true)
      return this.#run({ ...call, dependency: around }, undefined);
    const entry = dependency.enter(timeoutMs);
    if (entry.kind === 'held')
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
      // Its operation was stopped from here; nobody waits for an answer.
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
    // What an earlier attempt may have done must not be done a second time in another way, unless the call has no effect.
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

/** What has let the code through that makes the call: the dependency under the same key, or under any if it names none. */
function letThrough(dependency: Dependency): Dependency | undefined {
  const around = (frames.getStore()?.dependencies ?? []) as readonly Dependency[];
  return around.findLast((one) => one === dependency || one.whole === dependency);
}

/** Calls of the dependency inside of this one are part of it. */
function inside<T>(dependency: Dependency, fn: () => T): T {
  const around = frames.getStore();
  const dependencies = [...(around?.dependencies ?? []), dependency];
  return frames.run({ ...(around ?? NOBODYS), dependencies }, fn);
}

/** The frame of code that runs for no tenant. */
const NOBODYS = { owner: {}, tenantId: '', operation: undefined };

/** A call that its attempt outran took too long; one that was stopped for another reason says nothing. */
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
