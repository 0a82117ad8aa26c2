import { outsideOfAnyFrame } from '../../tenancy/outside-of-any-frame.js';
import { isConnectionTrouble } from './no-connection.js';
import { LOCK_NOT_AVAILABLE, QUERY_CANCELED, sqlStateOf } from './sqlstate.js';

/** How much a {@link Coalescer} asks at once. */
export interface CoalescerLimits {
  /** How many questions a statement may have. */
  readonly batchSize: number;
  /** How many statements may be under way. */
  readonly inFlight: number;
  /** After how many ms without an answer a statement is no longer waited for by the questions that come after it. */
  readonly slowMs: number;
}

/**
 * Most statements are over within 5 ms where Postgres is near and not busy. Where every one takes longer, it is the way to
 * Postgres, or its disk, that takes the time, and statements side by side do not keep each other waiting.
 */
const DEFAULT_LIMITS: CoalescerLimits = { batchSize: 500, inFlight: 3, slowMs: 5 };

/**
 * Answers many small questions with few statements: whatever arrives while a statement is under way forms the next one,
 * since two that share what there is to ask cost Postgres nearly twice what one costs. Only where that one is slow, or the
 * next one is full, another goes beside it. An idle process pays no waiting time, and a busy one shares its round trips.
 *
 * Two questions with the same key never share a batch, since one INSERT … ON CONFLICT cannot touch a row twice.
 * If a batch fails because of its data, each of its questions is asked again alone, so that one bad item fails alone.
 */
export class Coalescer<Question, Answer> {
  #waiting: Entry<Question, Answer>[] = [];
  #inFlight = 0;
  /** How many of those in flight are not slow, or not yet. */
  #quick = 0;

  constructor(
    private readonly ask: (questions: Question[]) => Promise<Answer[]>,
    private readonly keyOf: (question: Question) => string,
    private readonly limits: CoalescerLimits = DEFAULT_LIMITS,
  ) {}

  /** The answer to one question; rejects with the error of its own statement. */
  submit(question: Question): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ question, key: this.keyOf(question), resolve, reject });
      if (this.#mayAsk()) queueMicrotask(() => this.#next());
    });
  }

  #mayAsk(): boolean {
    const { batchSize, inFlight } = this.limits;
    return this.#inFlight < inFlight && (this.#quick === 0 || this.#waiting.length >= batchSize);
  }

  /** A statement for many belongs to none of their frames. */
  #next(): void {
    if (this.#waiting.length > 0 && this.#mayAsk()) outsideOfAnyFrame(() => this.#askWaiting());
  }

  #askWaiting(): void {
    const batch = this.#takeBatch();
    this.#inFlight += 1;
    this.#quick += 1;
    let isQuick = true;
    const leave = (): void => {
      if (isQuick) this.#quick -= 1;
      isQuick = false;
    };
    const slow = setTimeout(() => (leave(), this.#next()), this.limits.slowMs);
    void this.#answer(batch).finally(() => {
      clearTimeout(slow);
      leave();
      this.#inFlight -= 1;
      this.#next();
    });
  }

  #takeBatch(): Entry<Question, Answer>[] {
    const keys = new Set<string>();
    const batch: Entry<Question, Answer>[] = [];
    const later: Entry<Question, Answer>[] = [];
    for (const entry of this.#waiting) {
      if (batch.length >= this.limits.batchSize || keys.has(entry.key)) {
        later.push(entry);
      } else {
        keys.add(entry.key);
        batch.push(entry);
      }
    }
    this.#waiting = later;
    return batch;
  }

  async #answer(batch: Entry<Question, Answer>[]): Promise<void> {
    try {
      const answers = await this.ask(batch.map((entry) => entry.question));
      batch.forEach((entry, index) => entry.resolve(answers[index] as Answer));
    } catch (error) {
      if (batch.length === 1 || !isAboutOneItem(error)) {
        for (const entry of batch) entry.reject(error);
        return;
      }
      await this.#answerEach(batch);
    }
  }

  /**
   * One bad question fails alone. A lock that one after the other meets is the table's, and is not waited for by all; nor is
   * a Postgres that has stopped answering.
   */
  async #answerEach(batch: Entry<Question, Answer>[]): Promise<void> {
    let inARow = 0;
    for (const [index, entry] of batch.entries()) {
      try {
        const [answer] = await this.ask([entry.question]);
        entry.resolve(answer as Answer);
        inARow = 0;
      } catch (error) {
        entry.reject(error);
        inARow = TOOK_TOO_LONG.has(sqlStateOf(error)) ? inARow + 1 : 0;
        if (inARow < MAX_IN_A_ROW && !isConnectionTrouble(error)) continue;
        for (const other of batch.slice(index + 1)) other.reject(error);
        return;
      }
    }
  }
}

interface Entry<Question, Answer> {
  readonly question: Question;
  readonly key: string;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: unknown) => void;
}

/** What somebody holds, or what was not over in time: so many of these, one after the other, are no chance any more. */
const TOOK_TOO_LONG: ReadonlySet<string | undefined> = new Set([LOCK_NOT_AVAILABLE, QUERY_CANCELED]);
const MAX_IN_A_ROW = 3;

/**
 * Data exceptions (22), constraint violations (23), conflicts between transactions (40), limits (54), lock timeouts
 * (55P03) and cancelled statements (57014) can be one item's doing.
 */
function isAboutOneItem(error: unknown): boolean {
  return /^(?:22|23|40|54|55P03|57014)/.test(sqlStateOf(error) ?? '');
}
