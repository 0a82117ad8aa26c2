import type { QueuePort, OutgoingJob } from '../bullmq/queue-port.js';
import type { LibraryLog } from '../events/library-log.js';
import { within } from '../operation/within.js';
import type { QueueRegistry } from '../producer/queue-registry.js';

/** A committed row that must get to a BullMQ queue. */
export interface DueJob {
  /** The queue to put it on. */
  readonly queue: string;
  readonly job: OutgoingJob;
  /** Identifies the row to the source. */
  readonly row: unknown;
}

/** A table whose rows must get to BullMQ: operations to their queues, dead letters to theirs. */
export interface DispatchSource {
  /** Whether BullMQ retries these jobs. */
  readonly carriesRetries: boolean;
  /** The queue on which the rows of a source queue are put. */
  readonly targetOf: (queue: string) => string;
  /**
   * Groups due rows into the jobs that carry them. Those that a bundle on the queue still carries are left out (`there`); one
   * that has a job of its own is put again, which changes nothing.
   */
  group(port: QueuePort, due: readonly DueJob[]): Promise<Grouped>;
  /** Takes due rows for `reserveMs`, so that no other instance takes them meanwhile. At most `limit`, oldest first. */
  take(queues: readonly string[], limit: number, reserveMs: number): Promise<DueJob[]>;
  /** Notes that they are on their queues. */
  mark(parcels: readonly Parcel[]): Promise<void>;
}

/** A job of BullMQ, and the rows that it carries. */
export interface Parcel {
  readonly job: OutgoingJob;
  readonly due: readonly DueJob[];
  /** The job's id, if it carries several rows. */
  readonly bundleId?: string | null;
}

/** What is to be put on a queue. */
export interface Grouped {
  readonly parcels: readonly Parcel[];
  /** What has been on the queue all the time, in jobs that carry several rows. */
  readonly there: readonly Parcel[];
}

/** A parcel of its own for each row. */
export function alone(due: readonly DueJob[]): Parcel[] {
  return due.map((one) => ({ job: one.job, due: [one] }));
}

/** The dispatcher that a relay works for. */
interface RelayDispatcher {
  readonly isRunning: boolean;
  /** Called when a queue that rows may have been waiting for is free again. */
  wake(): void;
}

/**
 * Dispatches the due rows of one source to BullMQ: takes them for a while, puts them on their queue, and marks them.
 *
 * Queues do not wait for each other: while a put to one queue is under way, and while a queue rests because its backend
 * took nothing, rows are taken for the other queues only.
 */
export class OutboxRelay {
  /** Queues that rows are not taken for now. */
  readonly #away = new Set<string>();
  /** The queues among them that were skipped meanwhile; they are looked at as soon as they are free. */
  readonly #passedOver = new Set<string>();
  /** How often in a row a queue has taken nothing. */
  readonly #failures = new Map<string, number>();
  readonly #underWay = new Set<Promise<void>>();
  readonly #rests = new Set<NodeJS.Timeout>();
  readonly #refused = new RefusedJobs(HOLD_MS);
  /** Jobs that were put without an answer, or without a note of it. */
  readonly #unsure = new Set<string>();

  constructor(
    private readonly source: DispatchSource,
    private readonly queues: QueueRegistry,
    private readonly dispatcher: RelayDispatcher,
    private readonly log: LibraryLog,
  ) {}

  /** Takes what is due and starts putting it, without waiting for the puts. Rejects if the ledger cannot be read. */
  async carry(): Promise<void> {
    while (this.dispatcher.isRunning) {
      const queues = this.#freeQueues();
      if (queues.length === 0) return;
      const due = await this.source.take(queues, BATCH_SIZE, HOLD_MS);
      for (const [queue, jobs] of byQueue(due)) this.#send(queue, jobs);
      if (due.length < BATCH_SIZE) return;
    }
  }

  /** Waits for the puts that are under way, and ends all rests. */
  async drain(): Promise<void> {
    await Promise.all(this.#underWay);
    for (const timer of this.#rests) clearTimeout(timer);
    this.#rests.clear();
    this.#away.clear();
  }

  /** Of the queues that this process serves: it leaves the rows of others to the processes that serve them. */
  #freeQueues(): string[] {
    return this.queues.names.filter((queue) => {
      const target = this.source.targetOf(queue);
      if (!this.#away.has(target)) return true;
      this.#passedOver.add(target);
      return false;
    });
  }

  #send(queue: string, jobs: DueJob[]): void {
    this.#away.add(queue);
    const sending = this.#deliver(queue, jobs).then((isWell) => {
      this.#underWay.delete(sending);
      if (isWell) {
        this.#failures.delete(queue);
        this.#free(queue);
      } else {
        this.#rest(queue);
      }
    });
    this.#underWay.add(sending);
  }

  #rest(queue: string): void {
    const failures = (this.#failures.get(queue) ?? 0) + 1;
    this.#failures.set(queue, failures);
    this.#passedOver.add(queue);
    const timer = setTimeout(() => {
      this.#rests.delete(timer);
      this.#free(queue);
    }, pauseMs(failures));
    timer.unref();
    this.#rests.add(timer);
  }

  #free(queue: string): void {
    this.#away.delete(queue);
    if (this.#passedOver.delete(queue)) this.dispatcher.wake();
  }

  /** Puts and marks. Never rejects; answers whether more may be sent to the queue. */
  async #deliver(queue: string, due: DueJob[]): Promise<boolean> {
    const port = this.queues.portOf(queue);
    if (port === undefined) return false;
    // The others stay reserved until their time is over; then they are taken again.
    const jobs = due.filter(({ job }) => !this.#refused.isResting(job.jobId));
    if (jobs.length === 0) return true;
    // BullMQ keeps commands for a backend that does not answer, and all of them would arrive one day. So it gets no more.
    if (this.#failures.has(queue) && !(await answers(port))) return false;
    const grouped = await this.#group(port, jobs);
    if (grouped === undefined) return false;
    const { parcels, there } = grouped;
    const { taken, isReachable } = await this.#put(port, parcels);
    for (const { due: put } of taken) for (const { job } of put) this.#refused.forget(job.jobId);
    // What may be there unnoted goes by itself next time: the same job again changes nothing, another bundle would be one more.
    for (const { job } of jobs) this.#unsure.add(job.jobId);
    try {
      if (taken.length + there.length > 0) await this.source.mark([...taken, ...there]);
      for (const { due: put } of [...taken, ...there])
        for (const { job } of put) this.#unsure.delete(job.jobId);
    } catch (error) {
      // The jobs are on their queue, and will be put there once more.
      this.log.trouble(`Jobs of queue "${queue}" were put, but could not be marked`, error);
    }
    // A backend that refuses everything rests as well; a single bad job does not hold up the others.
    return isReachable && (taken.length > 0 || parcels.length <= 1);
  }

  /** Undefined when the backend does not answer. */
  async #group(port: QueuePort, jobs: readonly DueJob[]): Promise<Grouped | undefined> {
    try {
      const unsure = jobs.filter(({ job }) => this.#unsure.has(job.jobId));
      const sure = jobs.filter(({ job }) => !this.#unsure.has(job.jobId));
      if (this.#unsure.size > MAX_UNSURE) this.#unsure.clear();
      const { parcels, there } = await answered(PUT_TIMEOUT_MS, this.source.group(port, sure));
      return { parcels: [...alone(unsure), ...parcels], there };
    } catch (error) {
      this.log.trouble(`Queue "${port.name}" could not be asked what it has; it is tried again later`, error);
      return undefined;
    }
  }

  /** Puts a batch. If BullMQ refuses it, puts each row alone, so that a bad one holds up no other. Never rejects. */
  async #put(
    port: QueuePort,
    parcels: readonly Parcel[],
  ): Promise<{ taken: readonly Parcel[]; isReachable: boolean }> {
    if (parcels.length === 0) return { taken: [], isReachable: true };
    const outgoing = parcels.map(({ job }) => job);
    const due = parcels.flatMap((parcel) => parcel.due);
    let isAwaited = true;
    try {
      const put = port.put(outgoing, this.source.carriesRetries, () => isAwaited);
      await answered(PUT_TIMEOUT_MS, put);
      return { taken: parcels, isReachable: true };
    } catch (error) {
      isAwaited = false;
      // If all of them take that long together, each of them would take as long alone.
      const isReachable = !(error instanceof NoAnswer) && (await answers(port));
      if (due.length === 1 || !isReachable) {
        if (isReachable) this.#refused.note(due[0]?.job.jobId as string);
        const what = due.length === 1 ? `job ${due[0]?.job.jobId}` : `${due.length} jobs`;
        this.log.trouble(`Queue "${port.name}" did not take ${what}; they are tried again later`, error);
        return { taken: [], isReachable };
      }
    }
    const taken: Parcel[] = [];
    for (const parcel of alone(due)) {
      // Jobs that are not put by then are taken again when their reservation ends.
      if (!this.dispatcher.isRunning) break;
      const put = await this.#put(port, [parcel]);
      taken.push(...put.taken);
      if (!put.isReachable) return { taken, isReachable: false };
    }
    return { taken, isReachable: true };
  }
}

/** The rows that are taken at one time. A tenth of them is the largest bundle: see `producer/bundle.ts`. */
const BATCH_SIZE = 500;
/** More are not remembered. */
const MAX_UNSURE = 100_000;
/**
 * How long taken rows are reserved. Longer than a put may take, so that no other instance repeats a slow put; operations
 * whose dispatcher was killed in between wait for so long.
 */
const HOLD_MS = 10_000;
const PUT_TIMEOUT_MS = 5_000;
const PING_TIMEOUT_MS = 2_000;
const MAX_PAUSE_MS = 10_000;

/** How long a queue rests after so many failures in a row, in ms: 500, doubling to 10,000. */
export function pauseMs(failures: number): number {
  return Math.min(MAX_PAUSE_MS, 250 * 2 ** Math.min(failures, 10));
}

function byQueue(due: readonly DueJob[]): Map<string, DueJob[]> {
  const queues = new Map<string, DueJob[]>();
  for (const job of due) {
    const jobs = queues.get(job.queue);
    if (jobs === undefined) queues.set(job.queue, [job]);
    else jobs.push(job);
  }
  return queues;
}

function answers(port: QueuePort): Promise<boolean> {
  return answered(PING_TIMEOUT_MS, port.ping()).then(
    () => true,
    () => false,
  );
}

class NoAnswer extends Error {}

/** BullMQ waits for a lost connection without end; the dispatcher must not. */
function answered<T>(ms: number, work: Promise<T>): Promise<T> {
  return within(ms, work, () => new NoAnswer(`No answer from the queue's backend within ${ms} ms`));
}

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
