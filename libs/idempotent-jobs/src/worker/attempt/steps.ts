import { HandlerRun } from './handler-run.js';
import {
  assertNoTransactionAround,
  currentOperation,
  type ReconciledStep,
  type StepRun,
} from './current-operation.js';
import { type StepOptions, rulesOfStep } from '../rules/step.options.js';
import { UsageError } from '../../operation/errors.js';
import { fingerprintOf } from '../../operation/json.js';
import { stepIdentity, stepNameProblem } from '../../operation/identity.js';
import { frames } from '../../tenancy/frames.js';
import { identityAttributes } from '../../tracing/attributes.js';
import { type AttemptResult, errorOf } from './attempt-result.js';
import { WaitingError } from './refusal-errors.js';
import type { OperationRun } from './operation-run.js';
import type { OperationRules } from '../rules/operation-rules.js';

/** Runs a step as an operation of its own. Never rejects. */
export type RunStep = (step: OperationRun, handler: () => Promise<unknown>) => Promise<AttemptResult>;

/**
 * The steps of one attempt. Each is an operation of its own under `<key>/<name>`, run like any other: a finished step
 * is answered with its result, so that an attempt resumes after the last finished step.
 *
 * The handler's operation decides about retries: a step that failed without an effect, or with one that may be
 * repeated, throws, and is run again when the handler is. A step that is in doubt, or that another worker is running,
 * makes the whole operation wait without spending an attempt.
 */
export class Steps {
  readonly #names = new Set<string>();
  #waitMs: number | undefined;

  /** `onDegraded` is called when a step completes with a stand-in. */
  constructor(
    private readonly parent: OperationRun,
    private readonly runStep: RunStep,
    private readonly onDegraded: (why: string) => void,
  ) {}

  /** For how long the operation has to wait for one of its steps, in ms. Undefined when it has to wait for none. */
  get waitMs(): number | undefined {
    return this.#waitMs;
  }

  async run<T>(name: string, work: StepRun<T> | ReconciledStep<T>, options: StepOptions = {}): Promise<T> {
    this.#assertName(name);
    const { handlerRun, rules: handlerRules } = this.parent;
    if (options === null || typeof options !== 'object')
      throw new UsageError(`Step "${name}": options must be an object.`);
    const run = typeof work === 'function' ? work : work?.run;
    if (typeof run !== 'function')
      throw new UsageError(`Step "${name}" needs a function, or { run, reconcile }.`);
    const reconcile = typeof work === 'function' ? undefined : work.reconcile;
    const rules = rulesOfStep(name, handlerRules, options, reconcile !== undefined);
    assertNoTransactionAround(rules.effect);
    this.#names.add(name);
    if (!(await handlerRun.mayBegin()))
      throw new UsageError(`Step "${name}" was called after its attempt had ended; it is not run.`);

    const own = new HandlerRun(() => undefined);
    const leave = own.endWithRun(handlerRun, { hasOwnLease: true });
    const step = this.#stepOf(name, rules, reconcile, own);
    try {
      const frame = frames.getStore();
      if (frame === undefined) throw new UsageError(`Step "${name}" was called outside of its handler.`);
      const result = await frames.run({ ...frame, operation: undefined }, () =>
        this.#runTraced(name, step, async () => run(currentOperation())),
      );
      return this.#answer(step, result) as T;
    } finally {
      leave();
    }
  }

  async #runTraced(
    name: string,
    step: OperationRun,
    handler: () => Promise<unknown>,
  ): Promise<AttemptResult> {
    const { span } = this.parent;
    if (span === undefined) return this.runStep(step, handler);
    const attributes = {
      ...identityAttributes(step.identified),
      'idempotent_jobs.effect': step.rules.effect,
    };
    return span.inside(`step ${name}`, attributes, async (own) => {
      const result = await this.runStep({ ...step, span: own }, handler);
      own.ended(result);
      return result;
    });
  }

  #assertName(name: string): void {
    const problem = stepNameProblem(name);
    if (problem !== undefined) throw new UsageError(problem);
    if (this.#names.has(name))
      throw new UsageError(
        `Step "${name}" was called twice in one attempt, and the second call would get the first one's result. Give each call a name of its own, for example with the number of the item it is for.`,
      );
  }

  #stepOf(
    name: string,
    rules: OperationRules,
    reconcile: OperationRun['reconcile'],
    handlerRun: HandlerRun,
  ): OperationRun {
    const { identified, step } = this.parent;
    return {
      ...this.parent,
      rules,
      reconcile,
      // The job, the fallback and the earlier starts belong to the handler's operation.
      handsBack: undefined,
      fallback: undefined,
      earlierStarts: undefined,
      handlerRun,
      span: undefined,
      identified: {
        ...identified,
        ...stepIdentity(identified, name),
        // The step's request is the same if and only if that of the handler's operation is.
        fingerprint: fingerprintOf(JSON.stringify(['step', identified.fingerprint, name])),
        // As new as the handler's attempt: as long as the operation has a row, its steps are not forgotten.
        availableAt: Date.now(),
        rowMs: undefined,
        deadline: undefined,
      },
      step:
        step === undefined
          ? { of: identified.operationKey, name }
          : { of: step.of, name: `${step.name}/${name}` },
    };
  }

  #answer(step: OperationRun, result: AttemptResult): unknown {
    switch (result.kind) {
      case 'completed':
      case 'replayed':
        if (result.degraded !== undefined) this.onDegraded(result.degraded);
        return result.result;
      case 'failed':
        if (result.nextStep.status !== 'in_doubt') throw result.error;
        return this.#wait(step, result.nextStep.reconcileInMs ?? PERSON_MS, result.error);
      case 'deferred':
        return this.#wait(step, result.delayMs, errorOf(result));
      case 'refused':
        if (result.reason === 'in_doubt') return this.#wait(step, PERSON_MS, result.error);
        throw result.error;
      case 'handed_back':
        throw result.error;
      default:
        return result satisfies never;
    }
  }

  #wait({ identified }: OperationRun, waitMs: number, cause: unknown): never {
    this.#waitMs = Math.min(this.#waitMs ?? Infinity, waitMs);
    throw new WaitingError(identified, cause);
  }
}

/**
 * When the operator resolves the step's dead letter, the operation wakes. This delay is for operations without a row to
 * wake.
 */
const PERSON_MS = 5 * 60 * 1000;
