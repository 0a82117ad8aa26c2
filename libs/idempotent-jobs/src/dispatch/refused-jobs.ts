interface Refused {
  readonly times: number;
  /** By the clock of `performance.now()`. */
  readonly restsUntil: number;
}

/**
 * Jobs that BullMQ refuses for what they are (most likely too large), although it takes others. Each is tried again, less
 * and less often, because the queue's options may change. The list is this process's own; other processes try by
 * themselves.
 */
export class RefusedJobs {
  readonly #jobs = new Map<string, Refused>();

  /** @param periodMs how often the dispatcher takes a job again in any case */
  constructor(private readonly periodMs: number) {}

  isResting(jobId: string): boolean {
    return (this.#jobs.get(jobId)?.restsUntil ?? -Infinity) > performance.now();
  }

  /**
   * After its first refusal a job does not rest; then it rests for one period, three, seven …, and at most
   * {@link MAX_REST_MS}.
   */
  note(jobId: string): void {
    const times = (this.#jobs.get(jobId)?.times ?? 0) + 1;
    const restMs = Math.min(MAX_REST_MS, this.periodMs * (2 ** Math.min(times - 1, 20) - 1));
    this.#jobs.delete(jobId);
    this.#jobs.set(jobId, { times, restsUntil: performance.now() + restMs });
    const [oldest] = this.#jobs.keys();
    if (this.#jobs.size > MAX_JOBS && oldest !== undefined) this.#jobs.delete(oldest);
  }

  forget(jobId: string): void {
    this.#jobs.delete(jobId);
  }
}

/** Short enough to notice soon that an operator has raised the queue's limit. */
const MAX_REST_MS = 10 * 60_000;
/** When there are more, the job that was refused longest ago begins anew. */
const MAX_JOBS = 10_000;
