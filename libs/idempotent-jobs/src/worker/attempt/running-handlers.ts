import { Injectable } from '@nestjs/common';
import type { AbandonedBy } from '../../operation/reasons.js';
import { isOverWithin } from '../../operation/within.js';
import type { HandlerRun } from './handler-run.js';

/** The handlers that run in this process right now. */
@Injectable()
export class RunningHandlers {
  readonly #runs = new Map<HandlerRun, RunningJob | undefined>();
  #onEmpty: (() => void)[] = [];

  /** Adds a run, for a job if one asks for it. */
  add(run: HandlerRun, job?: RunningJob): void {
    this.#runs.set(run, job);
  }

  remove(run: HandlerRun): void {
    this.#runs.delete(run);
    if (this.#runs.size > 0 || this.#onEmpty.length === 0) return;
    for (const tell of this.#onEmpty.splice(0)) tell();
  }

  /** How many handlers are running. */
  get size(): number {
    return this.#runs.size;
  }

  /** Waits at most `ms` for all handlers to end, and says whether they have. */
  async isEmptyWithin(ms: number): Promise<boolean> {
    if (this.#runs.size === 0) return true;
    return isOverWithin(ms, new Promise<void>((resolve) => this.#onEmpty.push(resolve)));
  }

  abandonAll(by: AbandonedBy): void {
    for (const run of this.#runs.keys()) run.abandon(by);
  }

  /** Abandons the runs of a queue's job, or of all of its jobs, as cancelled. False if there are none. */
  cancel(queueName: string, jobId?: string): boolean {
    let isFound = false;
    for (const [run, job] of this.#runs) {
      if (job?.queueName !== queueName || (jobId !== undefined && job.id !== jobId)) continue;
      run.abandon('cancelled');
      isFound = true;
    }
    return isFound;
  }
}

/** A job of BullMQ. */
interface RunningJob {
  readonly queueName: string;
  readonly id?: string | undefined;
}
