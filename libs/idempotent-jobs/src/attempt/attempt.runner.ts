import type { Claim } from '../claim/claim.js';
import type { DeadLetterReason } from '../dead-letter/letter.js';
import type { AttemptBook, FailurePlace } from './attempt-book.js';
import { type Ending, whyPutOff } from './ending.js';
import type { Inquiry } from './inquiry.js';
import type { LeasedAttempt } from './leased.attempt.js';
import type { RunContext } from './run-context.js';
import type { TransactionalAttempt } from './transactional.attempt.js';

/** Where claim, execute and record meet: runs an operation the way its effect demands. Never rejects. */
export class AttemptRunner {
  constructor(
    private readonly leased: LeasedAttempt,
    private readonly transactional: TransactionalAttempt,
    private readonly book: AttemptBook,
    private readonly inquiry: Inquiry,
    private readonly random: () => number,
  ) {}

  /** Wins the right to run the handler, runs it, and records how it ended. */
  async run(context: RunContext, handler: () => Promise<unknown>): Promise<Ending> {
    try {
      return await (isTransactional(context) ? this.transactional : this.leased).run(context, handler);
    } catch (error) {
      return this.#unavailable(context, error);
    }
  }

  /** A guard, or an interceptor around ours, threw: the handler was not called, which counts as a failed attempt. */
  failUnstarted(context: RunContext, error: unknown): Promise<Ending> {
    // Whatever the error says about effects, there was none.
    const known = this.book.failureBefore(context, error);
    return this.#withoutHandler(context, (claim, place) =>
      claim.mustAsk
        ? this.inquiry.unresolved(context, claim, 'not_asked', error)
        : this.book.fail(context, claim, error, known, performance.now(), place),
    );
  }

  /** Nothing was claimed and nothing failed: later. */
  putOff(context: RunContext, reason: string): Ending {
    return this.book.deferred(context, 1, reason);
  }

  /** The operation must not be run at all. */
  refuse(context: RunContext, reason: DeadLetterReason, error: unknown): Promise<Ending> {
    return this.#withoutHandler(context, (claim, place) =>
      // What may have happened is asked about, whatever keeps it from being run.
      claim.mustAsk
        ? this.inquiry.unresolved(context, claim, reason, error)
        : this.book.giveUp(context, claim, reason, error, place),
    );
  }

  async #withoutHandler(context: RunContext, end: EndWithoutHandler): Promise<Ending> {
    try {
      return isTransactional(context)
        ? await this.transactional.runNothing(context, end)
        : await this.leased.runNothing(context, end);
    } catch (error) {
      return this.#unavailable(context, error);
    }
  }

  /** Postgres is out of reach, a record unreadable, or a bug of ours: nothing is known to be recorded, so BullMQ is told nothing but "later". */
  #unavailable(context: RunContext, error: unknown): Ending {
    return this.book.deferred(context, 1000 + this.random() * 4000, whyPutOff(error), 'unavailable');
  }
}

type EndWithoutHandler = (claim: Claim, place?: FailurePlace) => Promise<Ending>;

function isTransactional({ delivery }: RunContext): boolean {
  return delivery.processor.effect === 'transactional';
}
