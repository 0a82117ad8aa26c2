import { type CurrentOperation, surroundingOperation } from '../execute/current-operation.js';
import { UsageError } from '../operation/errors.js';
import { optionChecks } from '../option-checks.js';
import { classify } from '../resilience/classify.js';
import { type Failure, InDoubtError } from '../resilience/failure.js';
import { frames } from '../tenancy/frames.js';
import type { Dependencies } from './dependencies.js';
import type { Dependency, DependencyState, EventSubject } from './dependency.js';
import { DependencyHeldError, type FallbackReason, HOLD_CAUSES, holdBehind } from './hold.js';
import { isTimeout, type Pass } from './pass.js';
import { withTimeout } from './with-timeout.js';

/** How a call is guarded. */
export interface GuardedCallOptions<T> {
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
export class DependencyGuard {
  /** @internal Injected. */
  constructor(private readonly dependencies: Dependencies) {}

  /**
   * Calls `fn`, if the dependency lets it through. `signal` is aborted at the timeout, and with the surrounding operation.
   * In an operation's second attempt and later the call is a retry, and needs the retry budget. In a handler whose
   * processor has the same `dependency`, the call is part of what was let through, and only its timeout is its own.
   *
   * @throws DependencyHeldError when it is not let through; nothing was sent
   * @throws DependencyTimeoutError when it takes too long; and whatever `fn` throws
   * @throws UsageError for a dependency that `forRoot({ dependencies })` does not have
   */
  async call<T>(
    name: string,
    fn: (signal: AbortSignal) => T | Promise<T>,
    options: GuardedCallOptions<T> = {},
  ): Promise<T> {
    if (typeof fn !== 'function') throw new UsageError('DependencyGuard.call() needs a function to call.');
    const dependency = this.dependencies.named(name);
    if (options.timeoutMs !== undefined) assertTimer(options.timeoutMs);
    const timeoutMs = options.timeoutMs ?? dependency.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    const operation = surroundingOperation();
    if (frames.getStore()?.dependency === name)
      return this.#run(dependency, undefined, fn, timeoutMs, options);
    const entry = dependency.enter(timeoutMs);
    if (entry.kind === 'held')
      return this.#fallBack(dependency, entry.cause, new DependencyHeldError(entry), options);
    try {
      const hold = entry.begin((operation?.attempt ?? 1) > 1, subjectOf(operation));
      return hold === undefined
        ? await this.#run(dependency, entry, fn, timeoutMs, options)
        : await this.#fallBack(dependency, hold.cause, new DependencyHeldError(hold), options);
    } finally {
      entry.leave();
    }
  }

  /** @throws UsageError for a dependency that is not declared */
  stateOf(name: string): DependencyState {
    return this.dependencies.named(name).state;
  }

  /** Of all dependencies, in this process. */
  get states(): readonly DependencyState[] {
    return this.dependencies.states;
  }

  /** Lets nothing through in this process, until {@link unforce} or {@link forceClosed}. @throws UsageError */
  forceOpen(name: string): void {
    this.dependencies.named(name).force('open');
  }

  /** Lets everything through in this process, whatever becomes of it, until {@link unforce} or {@link forceOpen}. @throws UsageError */
  forceClosed(name: string): void {
    this.dependencies.named(name).force('closed');
  }

  /** Lets the circuit decide by itself again, from closed. @throws UsageError */
  unforce(name: string): void {
    this.dependencies.named(name).unforce();
  }

  /** `pass` undefined: the processor's dependency is the same, and hears of it from the attempt. */
  async #run<T>(
    dependency: Dependency,
    pass: Pass | undefined,
    fn: (signal: AbortSignal) => T | Promise<T>,
    timeoutMs: number,
    options: GuardedCallOptions<T>,
  ): Promise<T> {
    const operation = surroundingOperation();
    try {
      const onTimeout = (): Error =>
        new DependencyTimeoutError(`Dependency "${dependency.name}" took longer than its ${timeoutMs} ms.`);
      const value = await withTimeout(fn, timeoutMs, operation?.signal, onTimeout);
      pass?.succeeded();
      return value;
    } catch (error) {
      // The operation was stopped from here: that is not the dependency's doing.
      if (operation?.signal.aborted === true) throw error;
      const failure = this.#read(dependency, error);
      // Another dependency has held a call inside of it: that is not this one's doing.
      if (holdBehind(error) === undefined) pass?.failed(failure, subjectOf(operation));
      return this.#fallBack(dependency, isTimeout(failure) ? 'timeout' : 'failed', error, options);
    }
  }

  #read(dependency: Dependency, error: unknown): Failure {
    const failure = classify(error, dependency.classify);
    if (dependency.classify !== undefined) this.dependencies.noteReading(error, failure);
    return failure;
  }

  async #fallBack<T>(
    dependency: Dependency,
    reason: FallbackReason,
    error: unknown,
    { fallback, fallbackOn = HOLD_CAUSES }: GuardedCallOptions<T>,
  ): Promise<T> {
    if (fallback === undefined || !fallbackOn.includes(reason)) throw error;
    const value = await fallback(reason, error);
    const operation = surroundingOperation();
    operation?.markDegraded(`${dependency.name}: ${reason}`);
    dependency.fellBack(reason, subjectOf(operation));
    return value;
  }
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
