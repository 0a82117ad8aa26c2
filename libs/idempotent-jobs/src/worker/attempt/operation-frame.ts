import type { Job } from 'bullmq';
import type { EntityManager } from 'typeorm';
import type { Claim } from '../../ledger/claim/claim.js';
import type { RequestedOperation } from '../../producer/operation.store.js';
import type { CurrentOperation } from './current-operation.js';
import { cleanText } from '../../operation/thrown.js';
import { UsageError } from '../../operation/errors.js';
import { operationDigest } from '../../operation/identity.js';
import { shownKey } from '../../operation/origin.js';
import { type RunStep, Steps } from './steps.js';
import type { OperationRun } from './operation-run.js';

/**
 * One attempt: the handler's view of its operation, and what the handler did through it. Most handlers use little of the
 * view, so it is made of accessors, and each makes what it gives. Its functions may be taken out of it.
 */
export class OperationFrame implements CurrentOperation {
  #followUps: RequestedOperation[] | undefined;
  #steps: Steps | undefined;
  #degraded: string | undefined;
  #hasCalled = false;
  #isUntouched = false;

  // Private, so that whoever logs the view logs none of them.
  readonly #run: OperationRun;
  readonly #claim: Claim;
  readonly #transaction: EntityManager | undefined;
  readonly #runStep: RunStep;

  constructor(run: OperationRun, claim: Claim, transaction: EntityManager | undefined, runStep: RunStep) {
    this.#run = run;
    this.#claim = claim;
    this.#transaction = transaction;
    this.#runStep = runStep;
    run.span?.claimed(claim.attempt, claim.token);
  }

  /** What the handler enqueued. @internal */
  get followUps(): readonly RequestedOperation[] {
    return this.#followUps ?? NONE;
  }

  /** For how long the operation has to wait for one of its steps, in ms. Undefined when it has to wait for none. @internal */
  get waitMs(): number | undefined {
    return this.#steps?.waitMs;
  }

  /** Why the result is a stand-in. Undefined when it is none. @internal */
  get degraded(): string | undefined {
    return this.#degraded;
  }

  /** Whether a guarded call was sent, so that a later rejection does not mean that nothing happened. @internal */
  get hasCalled(): boolean {
    return this.#hasCalled;
  }

  /** Whether the handler says that it has had no effect, and has called nothing since. @internal */
  get isUntouched(): boolean {
    return this.#isUntouched;
  }

  get tenantId(): string {
    return this.#claim.tenantId;
  }

  get operationKey(): string {
    return shownKey(this.#claim.operationKey);
  }

  get stepName(): string | undefined {
    return this.#run.step?.name;
  }

  get queue(): string {
    return this.#run.subject.queue;
  }

  get jobName(): string {
    return this.#run.subject.jobName;
  }

  get attempt(): number {
    return this.#claim.attempt;
  }

  get startedAt(): Date {
    return this.#claim.startedAt;
  }

  get fencingToken(): number {
    return this.#claim.token;
  }

  get runId(): string {
    return this.#run.runId;
  }

  get idempotencyKey(): string {
    return operationDigest(this.#claim);
  }

  get signal(): AbortSignal {
    return this.#run.handlerRun.signal;
  }

  get deadline(): Date | undefined {
    return this.#claim.deadline;
  }

  get trace(): unknown {
    return this.#run.identified.trace;
  }

  get transaction(): EntityManager {
    if (this.#transaction !== undefined) return this.#transaction;
    throw new UsageError(
      `currentOperation().transaction exists only for effect "transactional"; this processor's effect is "${this.#run.rules.effect}".`,
    );
  }

  get job(): Job {
    const { job } = this.#run;
    if (job !== undefined) return job;
    throw new UsageError('currentOperation().job: this operation is a call; no job asked for it.');
  }

  get mayHaveHappened(): boolean {
    return this.#claim.isDoubtful && this.#claim.repeatableMs !== Infinity;
  }

  get isOver(): boolean {
    return this.#run.handlerRun.isOver;
  }

  get markDegraded(): CurrentOperation['markDegraded'] {
    return (by) => {
      this.#degraded ??= cleanText(by, MAX_DEGRADED);
    };
  }

  get markNotApplied(): CurrentOperation['markNotApplied'] {
    return () => {
      this.#isUntouched = true;
    };
  }

  get noteCall(): CurrentOperation['noteCall'] {
    return () => {
      this.#hasCalled = true;
      this.#isUntouched = false;
    };
  }

  get mayBegin(): CurrentOperation['mayBegin'] {
    return () => this.#run.handlerRun.mayBegin();
  }

  get step(): CurrentOperation['step'] {
    this.#steps ??= new Steps(this.#run, this.#runStep, this.markDegraded);
    const steps = this.#steps;
    return (name, work, options) => steps.run(name, work, options);
  }

  get enqueue(): CurrentOperation['enqueue'] {
    return (queue, name, payload, options) => {
      if (this.#run.handlerRun.isOver) {
        throw new UsageError(
          'enqueue() was called after its attempt had ended; nothing is enqueued. Await everything the handler starts.',
        );
      }
      this.#followUps ??= [];
      this.#followUps.push(queue.ask(name, payload, options));
    };
  }
}

const NONE: readonly RequestedOperation[] = [];

/** It is read in lists, so a few words must do. */
const MAX_DEGRADED = 200;
