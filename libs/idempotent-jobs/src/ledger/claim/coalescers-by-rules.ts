import { identityKeyOf, type OperationIdentity } from '../../operation/identity.js';
import { Coalescer } from '../postgres/coalescer.js';
import type { ClaimRules } from './claim.js';

/** Coalescers by the rules of processors: only what has the same rules can share a statement. */
export class CoalescersByRules<Question extends OperationIdentity, Answer> {
  readonly #byObject = new WeakMap<ClaimRules, Coalescer<Question, Answer>>();
  /** Guarded calls make rules of their own each time, which are mostly the same ones. */
  readonly #byContent = new Map<string, Coalescer<Question, Answer>>();

  constructor(private readonly ask: (rules: ClaimRules, questions: Question[]) => Promise<Answer[]>) {}

  /** The answer to one question: see {@link Coalescer.submit}. */
  submit(rules: ClaimRules, question: Question): Promise<Answer> {
    let coalescer = this.#byObject.get(rules);
    if (coalescer === undefined) {
      coalescer = this.#withContentOf(rules);
      this.#byObject.set(rules, coalescer);
    }
    return coalescer.submit(question);
  }

  #withContentOf(rules: ClaimRules): Coalescer<Question, Answer> {
    const { queue, origin, effect, leaseMs, repeatableMs, budgetMs, canReconcile } = rules;
    // The queue is last, because it is the only one that may have spaces.
    const key = [origin, effect, leaseMs, repeatableMs, budgetMs, canReconcile, queue].join(' ');
    let coalescer = this.#byContent.get(key);
    if (coalescer === undefined) {
      coalescer = new Coalescer<Question, Answer>((questions) => this.ask(rules, questions), identityKeyOf);
      if (this.#byContent.size < MAX_SHARED) this.#byContent.set(key, coalescer);
    }
    return coalescer;
  }
}

/** Rules made from data, beyond this number, share no statements. */
const MAX_SHARED = 1000;
