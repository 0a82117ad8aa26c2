import type { Job } from 'bullmq';

/** A note on a job that a text which anybody writes to it (a log line, an error, its data) cannot make or change. */
export interface PutOffNote {
  /** As it stands in BullMQ; undefined: there is none. */
  noteOn(jobId: string): Promise<string | undefined>;
  /** Takes the place of an earlier one, and goes with the job. */
  writeNoteOn(jobId: string, note: string): Promise<void>;
}

/**
 * What BullMQ has counted of a plain job before this delivery. A worker without the library leaves no record of what it
 * has run; but a delivery that this library has put off before anything was claimed is counted as well, and must not be
 * taken for that. So the library notes it on the job in BullMQ, by its number: the note outlives an outage of the ledger,
 * and is not a part of what the job asks for.
 */
export class EarlierStarts {
  constructor(
    private readonly job: Job,
    private readonly note: PutOffNote,
  ) {}

  /** Whether anybody may have started the job before, also if the counters were reset since. */
  get areThere(): boolean {
    return this.job.attemptsStarted > 1 || this.#haveEnded;
  }

  /** Whether all of them were deliveries of this library that ended before anything was claimed. */
  async wereUnclaimed(): Promise<boolean> {
    if (!this.areThere) return true;
    // What we put off leaves none of these; so counters that begin anew cannot meet a note of before.
    if (this.#haveEnded) return false;
    return (await this.note.noteOn(this.#jobId)) === noteOf(this.job.attemptsStarted - 1);
  }

  /** This delivery ends before anything was claimed. Says nothing where an earlier one may have been somebody else's. */
  async noteUnclaimed(): Promise<void> {
    if (await this.wereUnclaimed())
      await this.note.writeNoteOn(this.#jobId, noteOf(this.job.attemptsStarted));
  }

  /** Whether an attempt has failed, or a worker died, under anybody. */
  get #haveEnded(): boolean {
    const { attemptsMade, stalledCounter, stacktrace } = this.job;
    return attemptsMade > 0 || stalledCounter > 0 || (stacktrace ?? []).length > 0;
  }

  get #jobId(): string {
    return this.job.id ?? '';
  }
}

function noteOf(start: number): string {
  return `start ${start}`;
}
