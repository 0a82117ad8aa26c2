import type { Job } from 'bullmq';

/**
 * What BullMQ has counted of a plain job before this delivery. A worker without the library leaves no record of what it
 * has run; but a delivery that this library has put off before anything was claimed is counted as well, and must not be
 * taken for that. So the library notes it in the job's log, by its number: the log outlives an outage of the ledger, and is
 * not a part of what the job asks for.
 */
export class EarlierStarts {
  constructor(
    private readonly job: Job,
    /** The job's log, newest first. */
    private readonly log: () => Promise<readonly string[]>,
  ) {}

  /** Whether anybody may have started the job before, also if the counters were reset since. */
  get areThere(): boolean {
    const { attemptsStarted, attemptsMade, stalledCounter, stacktrace } = this.job;
    return attemptsStarted > 1 || attemptsMade > 0 || stalledCounter > 0 || (stacktrace ?? []).length > 0;
  }

  /** Whether all of them were deliveries of this library that ended before anything was claimed. */
  async wereUnclaimed(): Promise<boolean> {
    if (!this.areThere) return true;
    return (await this.log()).includes(noteOf(this.job.attemptsStarted - 1));
  }

  /** This delivery ends before anything was claimed. Says nothing where an earlier one may have been somebody else's. */
  async noteUnclaimed(): Promise<void> {
    if (await this.wereUnclaimed()) await this.job.log(noteOf(this.job.attemptsStarted));
  }
}

function noteOf(start: number): string {
  return `nestjs-idempotent-jobs: put off before anything of it was claimed or run (start ${start})`;
}
