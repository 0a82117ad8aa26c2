import { Attempt } from '../execute/attempt.js';
import { assertNoTransactionAround, currentOperation } from '../execute/current-operation.js';
import type { ReconciledStep, StepOptions, StepRun } from '../execute/step.js';
import { UsageError } from '../operation/errors.js';
import { fingerprintOf } from '../operation/fingerprint.js';
import { stepIdentity, stepNameProblem } from '../operation/identity.js';
import { frames } from '../tenancy/frames.js';
import { identityAttributes } from '../tracing/attributes.js';
import type { Ending } from './ending.js';
import { WaitingError } from './refusal-errors.js';
import type { RunContext } from './run-context.js';
import { settingsOfStep } from './step-settings.js';

/**
 * The steps of one attempt. Each is an operation of its own under `<key>/<name>`, run by the same engine: one that has
 * finished answers with its result, so that an attempt resumes after the last finished one.
 *
 * The handler's operation decides about retries: a step that failed without an effect, or with one that may be repeated,
 * throws, and is run again when the handler is. A step that is in doubt, or that another worker is running, makes the
 * whole operation wait without spending an attempt.
 */
export class Steps {
  readonly #names = new Set<string>();
  #waitMs: number | undefined;

  /** `onDegraded`: one of the steps completed with a stand-in. */
  constructor(
    private readonly parent: RunContext,
    private readonly onDegraded: (why: string) => void,
  ) {}

  /** For how long the operation has to wait for one of its steps, in ms; undefined: for none. */
  get waitMs(): number | undefined {
    return this.#waitMs;
  }

  async run<T>(name: string, work: StepRun<T> | ReconciledStep<T>, options: StepOptions = {}): Promise<T> {
    this.#assertName(name);
    const { attempt, delivery } = this.parent;
    if (options === null || typeof options !== 'object')
      throw new UsageError(`Step "${name}": options must be an object.`);
    const run = typeof work === 'function' ? work : work?.run;
    if (typeof run !== 'function')
      throw new UsageError(`Step "${name}" needs a function, or { run, reconcile }.`);
    const reconcile = typeof work === 'function' ? undefined : work.reconcile;
    const settings = settingsOfStep(name, delivery.processor, options, reconcile !== undefined);
    assertNoTransactionAround(settings.effect);
    this.#names.add(name);
    if (!(await attempt.mayBegin()))
      throw new UsageError(`Step "${name}" was called after its attempt had ended; it is not run.`);

    const { context, leave } = this.#open(name, {
      ...delivery,
      processor: settings,
      // Its handler's job is not its own.
      handsBack: undefined,
      reconcile,
    });
    try {
      const frame = frames.getStore();
      if (frame === undefined) throw new UsageError(`Step "${name}" was called outside of its handler.`);
      const ending = await frames.run({ ...frame, operation: undefined }, () =>
        this.#runTraced(name, context, async () => run(currentOperation())),
      );
      return this.#answer(context, ending) as T;
    } finally {
      leave();
    }
  }

  async #runTraced(name: string, context: RunContext, handler: () => Promise<unknown>): Promise<Ending> {
    const { span, runWithin } = this.parent;
    if (span === undefined) return runWithin(context, handler);
    const attributes = {
      ...identityAttributes(context.identified),
      'idempotent_jobs.effect': context.delivery.processor.effect,
    };
    return span.inside(`step ${name}`, attributes, async (own) => {
      const ending = await runWithin({ ...context, span: own }, handler);
      own.ended(ending);
      return ending;
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

  #open(name: string, delivery: RunContext['delivery']): { context: RunContext; leave: () => void } {
    const { identified, asked, attempt, step, runWithin } = this.parent;
    const { tenantId, operationKey } = stepIdentity(identified, name);
    const own = new Attempt(() => undefined);
    // The step's lease is its own: it is given up in order, and not left to run out.
    const stop = (): void =>
      own.abandon(
        attempt.abandonedBecause === 'lease_lost' ? 'cancelled' : (attempt.abandonedBecause ?? 'cancelled'),
      );
    attempt.signal.addEventListener('abort', stop, { once: true });
    if (attempt.isOver) stop();
    return {
      context: {
        delivery,
        asked,
        identified: {
          ...identified,
          tenantId,
          operationKey,
          // The same request of the handler's operation is the same request of its step.
          fingerprint: fingerprintOf(JSON.stringify(['step', identified.fingerprint, name])),
          // As young as its handler's attempt: while the operation has a row, nothing of it is forgotten.
          availableAt: Date.now(),
          rowMs: undefined,
          deadline: undefined,
        },
        attempt: own,
        step:
          step === undefined
            ? { of: identified.operationKey, name }
            : { of: step.of, name: `${step.name}/${name}` },
        runWithin,
      },
      leave: () => attempt.signal.removeEventListener('abort', stop),
    };
  }

  #answer(context: RunContext, ending: Ending): unknown {
    switch (ending.kind) {
      case 'completed':
      case 'replayed':
        if (ending.degraded !== undefined) this.onDegraded(ending.degraded);
        return ending.result;
      case 'failed':
        if (ending.decision.status !== 'in_doubt') throw ending.error;
        return this.#wait(context, ending.decision.askInMs ?? PERSON_MS, ending.error);
      case 'in_doubt':
        return this.#wait(context, PERSON_MS, ending.error);
      case 'deferred':
        return this.#wait(context, ending.delayMs, ending.error);
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

  #wait({ identified }: RunContext, waitMs: number, cause: unknown): never {
    this.#waitMs = Math.min(this.#waitMs ?? Infinity, waitMs);
    throw new WaitingError(identified, cause);
  }
}

/** Whoever resolves the step's dead letter wakes the operation; this is for those whom no row can wake. */
const PERSON_MS = 5 * 60 * 1000;
