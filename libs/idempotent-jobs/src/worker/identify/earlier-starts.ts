import type { Job } from 'bullmq';
import type { QueueContents } from '../../bullmq/queue-contents.js';

/**
 * The starts that BullMQ counted of a plain job before this delivery. A worker without the library leaves no record of
 * what it ran, so an earlier start may be an unrecorded attempt. But BullMQ also counts deliveries that this library
 * deferred before anything was claimed. The library therefore notes their number on the job in BullMQ: the note outlives
 * an outage of the ledger, and is no part of what the job asks for.
 */
export class EarlierStarts {
  constructor(
    private readonly job: Job,
    private readonly note: Pick<QueueContents, 'noteOn' | 'writeNoteOn'>,
  ) {}

  /** Whether any worker may have started the job before, even if the counters were reset since. */
  get areThere(): boolean {
    return wasStartedBefore(this.job);
  }

  /** Whether all earlier starts were deliveries of this library that ended before anything was claimed. */
  async wereUnclaimed(): Promise<boolean> {
    if (!this.areThere) return true;
    // A delivery that the library defers leaves none of these traces. So counters that were reset cannot match an old
    // note.
    if (hasEndedBefore(this.job)) return false;
    return (await this.note.noteOn(this.#jobId)) === noteOf(this.job.attemptsStarted - 1);
  }

  /** Notes that this delivery ends before anything was claimed. Writes nothing if an earlier start may have run the job. */
  async noteUnclaimed(): Promise<void> {
    if (await this.wereUnclaimed())
      await this.note.writeNoteOn(this.#jobId, noteOf(this.job.attemptsStarted));
  }

  get #jobId(): string {
    return this.job.id ?? '';
  }
}

/** Whether any worker may have started a job before this delivery, even if the counters were reset since. */
export function wasStartedBefore(job: Job): boolean {
  return job.attemptsStarted > 1 || hasEndedBefore(job);
}

/** Whether an attempt failed, or a worker died, with or without the library. */
function hasEndedBefore({ attemptsMade, stalledCounter, stacktrace }: Job): boolean {
  return attemptsMade > 0 || stalledCounter > 0 || (stacktrace ?? []).length > 0;
}

function noteOf(start: number): string {
  return `start ${start}`;
}
