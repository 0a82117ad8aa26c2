import { outsideOfAnyFrame } from '../../tenancy/frames.js';
import { isConnectionTrouble, LOCK_NOT_AVAILABLE, QUERY_CANCELED, sqlStateOf } from './no-connection.js';

/** How much a {@link Coalescer} asks at once. */
export interface CoalescerLimits {
  /** The most questions of a statement. */
  readonly batchSize: number;
  /** The most statements under way. */
  readonly inFlight: number;
  /** After how many ms without an answer a statement counts as slow, so that new questions no longer wait for it. */
  readonly slowMs: number;
}

/**
 * Most statements take less than 5 ms when Postgres is near and not busy. Where every one takes longer, the time goes into
 * the network or the disk, and parallel statements do not slow each other down.
 */
const DEFAULT_LIMITS: CoalescerLimits = { batchSize: 500, inFlight: 3, slowMs: 5 };

/**
 * Answers many small questions with few statements. Questions that arrive while a statement is under way form the next
 * one, because two statements that share the questions cost Postgres nearly twice as much as one. Another statement starts
 * beside it only where that one is slow or the next one is full. So an idle process waits no longer than the turn of the event
 * loop, and a busy one shares round trips.
 *
 * Two questions with the same key never share a batch, since one INSERT … ON CONFLICT cannot touch a row twice. If a batch
 * fails with an error of Postgres that one item may have caused (its data, a lock, a conflict), each of its questions is asked
 * again alone, so that one bad item fails alone. A batch that is put on a queue in Redis has no such errors, and fails whole.
 */
export class Coalescer<Question, Answer> {
  #waiting: Entry<Question, Answer>[] = [];
  #inFlight = 0;
  /** How many of the statements in flight are not slow so far. */
  #quick = 0;
  /** Whether the next statement is on its way. */
  #isCalled = false;

  constructor(
    private readonly ask: (questions: Question[]) => Promise<Answer[]>,
    private readonly keyOf: (question: Question) => string,
    private readonly limits: CoalescerLimits = DEFAULT_LIMITS,
  ) {}

  /** The answer to one question; rejects with the error of its own statement, or with an answer that is an error. */
  submit(question: Question): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ question, key: this.keyOf(question), resolve, reject });
      if (!this.#isCalled && this.#mayAsk()) this.#call();
    });
  }

  #mayAsk(): boolean {
    const { batchSize, inFlight } = this.limits;
    return this.#inFlight < inFlight && (this.#quick === 0 || this.#waiting.length >= batchSize);
  }

  /** Asks after this turn of the event loop, which may bring more questions: the jobs that arrived with one answer of BullMQ's. */
  #call(): void {
    this.#isCalled = true;
    setImmediate(() => {
      this.#isCalled = false;
      this.#next();
    });
  }

  /** A statement for many questions runs in none of their frames. */
  #next(): void {
    while (this.#waiting.length > 0 && this.#mayAsk()) outsideOfAnyFrame(() => this.#askWaiting());
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
      batch.forEach((entry, index) => settle(entry, answers[index] as Answer));
    } catch (error) {
      if (batch.length === 1 || !isAboutOneItem(error)) {
        for (const entry of batch) entry.reject(error);
        return;
      }
      await this.#answerEach(batch);
    }
  }

  /**
   * Asks each question alone, so that one bad question fails alone. If several in a row meet a lock, it is the table's
   * lock, and the rest does not wait for it; nor does it wait for a Postgres that has stopped answering.
   */
  async #answerEach(batch: Entry<Question, Answer>[]): Promise<void> {
    let inARow = 0;
    for (const [index, entry] of batch.entries()) {
      try {
        const [answer] = await this.ask([entry.question]);
        settle(entry, answer as Answer);
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

function settle<Answer>(entry: Entry<unknown, Answer>, answer: Answer): void {
  if (answer instanceof Error) entry.reject(answer);
  else entry.resolve(answer);
}

/** A lock that is held, or a statement that took too long. So many in a row are no coincidence. */
const TOOK_TOO_LONG: ReadonlySet<string | undefined> = new Set([LOCK_NOT_AVAILABLE, QUERY_CANCELED]);
const MAX_IN_A_ROW = 3;

/**
 * Data exceptions (22), constraint violations (23), conflicts between transactions (40), limits (54), lock timeouts
 * (55P03) and cancelled statements (57014) can be one item's doing.
 */
function isAboutOneItem(error: unknown): boolean {
  return /^(?:22|23|40|54|55P03|57014)/.test(sqlStateOf(error) ?? '');
}
