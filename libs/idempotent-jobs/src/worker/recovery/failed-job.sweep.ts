import { Injectable } from '@nestjs/common';
import type { Job } from 'bullmq';
import { wasFailedByBullmq } from '../../bullmq/unprocessed.js';
import { LetterStore } from '../../dead-letters/letter.store.js';
import { readBundle } from '../../producer/bundle.js';
import { provenanceOf } from '../../producer/envelope.js';
import { JobIdentifier } from '../identify/identify.js';
import { ProcessorHost } from '../host/processor-host.js';
import type { ProcessorRules } from '../rules/operation-rules.js';
import { LibraryLog } from '../../events/library-log.js';
import { jobSubjectOf } from '../../operation/job.js';
import { EndedJobSweep, type SweptQueue } from './ended-job.sweep.js';

/**
 * Looks for failed BullMQ jobs that the ledger does not account for. BullMQ fails a job without calling the processor
 * when its workers died under it too often; the `failed` event that reports it is lost if that worker dies as well.
 *
 * Starts with the newest and stops at a page without unknown jobs: an earlier sweep has seen everything older. The
 * first sweep of a process looks at all pages.
 */
@Injectable()
export class FailedJobSweep {
  #timer: NodeJS.Timeout | undefined;
  #isSweeping = false;
  readonly #sweptOnce = new Set<string>();

  constructor(
    private readonly letters: LetterStore,
    private readonly host: ProcessorHost,
    /** Looks for operations of a queue whose job has ended without them. */
    private readonly endedJobs: EndedJobSweep,
    private readonly log: LibraryLog,
  ) {}

  start(intervalMs: number, queues: readonly SweptQueue[]): void {
    this.#timer = setInterval(() => {
      if (this.#isSweeping) return;
      this.#isSweeping = true;
      void this.sweep(queues).finally(() => {
        this.#isSweeping = false;
      });
    }, intervalMs);
    this.#timer.unref();
  }

  /** A running sweep is not waited for: it may wait for a backend that is out of reach, and a shutdown must not. */
  stop(): void {
    clearInterval(this.#timer);
  }

  async sweep(queues: readonly SweptQueue[]): Promise<void> {
    for (const queue of queues) {
      try {
        await this.#sweepQueue(queue);
        this.#sweptOnce.add(queue.port.name);
        await this.endedJobs.sweep(queue);
      } catch (error) {
        this.log.trouble(
          `Sweeping the jobs of queue "${queue.port.name}" was interrupted; it goes on with the next sweep`,
          error,
        );
      }
    }
  }

  async #sweepQueue({ port, rules }: SweptQueue): Promise<void> {
    for (let from = 0; ; from += PAGE) {
      const jobs = await port.contents.failed(from, from + PAGE - 1);
      const unknown = await this.#unaccounted(port.name, rules, jobs);
      for (const job of unknown) await this.#writeLetter(rules, job);
      const isAllKnown = unknown.length === 0 && this.#sweptOnce.has(port.name);
      if (jobs.length < PAGE || isAllKnown) return;
    }
  }

  /**
   * A job that cannot be read, or whose dead letter cannot be written, is left for a later sweep and must not block the
   * others.
   */
  async #writeLetter(rules: ProcessorRules, job: Job): Promise<void> {
    try {
      await this.host.writeUnprocessed(rules, job, new Error(job.failedReason ?? 'BullMQ failed the job'));
    } catch (error) {
      this.log.trouble(
        `Job ${jobSubjectOf(job).jobId} of queue "${rules.queue}" has no dead letter yet`,
        error,
      );
    }
  }

  async #unaccounted(queue: string, rules: ProcessorRules, jobs: readonly Job[]): Promise<Job[]> {
    const failed = await failedByBullmq(jobs);
    if (failed.length === 0) return [];
    // A bundle that is taken apart is removed, so each one that is there is still to be taken apart.
    const bundles = failed.filter((job) => readBundle(job) !== undefined);
    const present = failed.filter((job) => readBundle(job) === undefined);
    const asked = present.map((job) => {
      const identified = UNCHECKED.identify(job, provenanceOf(job), rules.identify);
      return { jobId: job.id as string, identity: identified.kind === 'identified' ? identified : undefined };
    });
    const accounted = await this.letters.accountedFor(queue, asked);
    return [...bundles, ...present.filter((job) => !accounted.has(job.id as string))];
  }
}

async function failedByBullmq(jobs: readonly Job[]): Promise<Job[]> {
  // A job that was retried or removed between listing and reading comes back empty.
  const present = jobs.filter((job) => job?.id !== undefined);
  const areOwn = await Promise.all(present.map(wasFailedByBullmq));
  return present.filter((_job, index) => areOwn[index]);
}

const PAGE = 100;

/**
 * Tells a job's operation without decrypting its payload or checking its signature: the identity is only used to look for
 * what is accounted for already.
 */
const UNCHECKED = new JobIdentifier(
  { open: (payload) => payload },
  { isOn: false, verify: () => 'accepted' },
);
