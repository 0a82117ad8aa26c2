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

/** The handler's view of its operation, and what the handler did through it. */
export interface OperationFrame {
  readonly operation: CurrentOperation;
  readonly followUps: readonly RequestedOperation[];
  readonly steps: Steps;
  /** Why the result is a stand-in. Undefined when it is none. */
  readonly degraded: string | undefined;
  /** Whether a guarded call was sent, so that a later rejection does not mean that nothing happened. */
  readonly hasCalled: boolean;
  /** Whether the handler says that it has had no effect, and has called nothing since. */
  readonly isUntouched: boolean;
}

/** Makes the frame of one attempt. */
export function openFrame(
  run: OperationRun,
  claim: Claim,
  transaction: EntityManager | undefined,
  runStep: RunStep,
): OperationFrame {
  const followUps: RequestedOperation[] = [];
  const markDegraded = (by: string): void => {
    degraded ??= cleanText(by, MAX_DEGRADED);
  };
  let degraded: string | undefined;
  let hasCalled = false;
  let isUntouched = false;
  const steps = new Steps(run, runStep, markDegraded);
  const { tenantId, operationKey } = claim;
  run.span?.claimed(claim.attempt, claim.token);
  const operation: CurrentOperation = {
    tenantId,
    operationKey: shownKey(operationKey),
    stepName: run.step?.name,
    queue: run.subject.queue,
    jobName: run.subject.jobName,
    attempt: claim.attempt,
    startedAt: claim.startedAt,
    fencingToken: claim.token,
    runId: run.runId,
    get idempotencyKey() {
      return operationDigest(claim);
    },
    get signal() {
      return run.handlerRun.signal;
    },
    deadline: claim.deadline,
    trace: run.identified.trace,
    get transaction() {
      if (transaction === undefined) {
        throw new UsageError(
          `currentOperation().transaction exists only for effect "transactional"; this processor's effect is "${run.rules.effect}".`,
        );
      }
      return transaction;
    },
    get job() {
      const { job } = run;
      if (job === undefined)
        throw new UsageError('currentOperation().job: this operation is a call; no job asked for it.');
      return job;
    },
    markDegraded,
    markNotApplied() {
      isUntouched = true;
    },
    mayHaveHappened: claim.isDoubtful && claim.repeatableMs !== Infinity,
    get isOver() {
      return run.handlerRun.isOver;
    },
    mayBegin: () => run.handlerRun.mayBegin(),
    noteCall() {
      hasCalled = true;
      isUntouched = false;
    },
    step: (name, work, options) => steps.run(name, work, options),
    enqueue(queue, name, payload, options) {
      if (run.handlerRun.isOver) {
        throw new UsageError(
          'enqueue() was called after its attempt had ended; nothing is enqueued. Await everything the handler starts.',
        );
      }
      followUps.push(queue.ask(name, payload, options));
    },
  };
  return {
    operation,
    followUps,
    steps,
    get degraded() {
      return degraded;
    },
    get hasCalled() {
      return hasCalled;
    },
    get isUntouched() {
      return isUntouched;
    },
  };
}

/** It is read in lists, so a few words must do. */
const MAX_DEGRADED = 200;
