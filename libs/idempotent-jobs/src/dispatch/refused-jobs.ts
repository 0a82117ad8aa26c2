interface Refused {
  readonly times: number;
  /** On the clock of `performance.now()`. */
  readonly restsUntil: number;
}

/**
 * Jobs that BullMQ does not take for what they are (too large, most likely), although it takes others. Each is tried
 * again, for the queue's options may change, but ever more seldom. Of this process alone: another one tries by itself.
 */
export class RefusedJobs {
  readonly #jobs = new Map<string, Refused>();

  /** @param periodMs how often a job is looked at in any case */
  constructor(private readonly periodMs: number) {}

  isResting(jobId: string): boolean {
    return (this.#jobs.get(jobId)?.restsUntil ?? -Infinity) > performance.now();
  }

  /** At its first refusal a job does not rest; then one period, three, seven … of them, and at most {@link MAX_REST_MS}. */
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

/** Soon enough after somebody has raised the queue's limit. */
const MAX_REST_MS = 10 * 60_000;
/** Beyond that, the one that was refused longest ago begins anew. */
const MAX_JOBS = 10_000;
