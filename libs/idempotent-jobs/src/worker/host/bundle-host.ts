import { Injectable, Optional } from '@nestjs/common';
import type { Job, Worker } from 'bullmq';
import { BundledJobView } from '../../bullmq/bundled-job.js';
import { type QueueLimits, wasMoved } from '../../bullmq/hand-back.js';
import type { OutgoingJob, QueuePort } from '../../bullmq/queue-port.js';
import { LibraryLog } from '../../events/library-log.js';
import { printable } from '../../events/printable.js';
import { Coalescer } from '../../ledger/postgres/coalescer.js';
import { type BundledJob, withoutJobs } from '../../producer/bundle.js';
import { isEnvelope, provenanceOf } from '../../producer/envelope.js';
import type { OperationIdentity } from '../../operation/identity.js';
import { OperationStore, unbundle } from '../../producer/operation.store.js';
import { QueueRegistry } from '../../producer/queue-registry.js';
import { type Ack, acknowledge } from '../acknowledge/acknowledge.js';
import { Slots } from './slots.js';

/** A bundle that BullMQ has delivered, and the means to work it off. */
export interface DeliveredBundle {
  readonly job: Job;
  readonly token: string | undefined;
  readonly carried: readonly BundledJob[];
  readonly worker: Worker;
  /** The rate limits by which handlers hand their jobs back. */
  readonly limits: QueueLimits;
  /** Delivers one of its jobs to the processor. */
  readonly deliver: (job: Job) => Promise<Ack>;
}

/**
 * Works off BullMQ jobs that carry many operations. Each operation is delivered like a job of its own; what is to be
 * delivered again is put on the queue by itself. BullMQ is told that the bundle is done once each of its operations has
 * ended or is on the queue by itself. If the process is killed before that, the bundle comes again, and the ledger answers
 * for what has ended.
 */
@Injectable()
export class BundleHost {
  readonly #slots = new Map<Worker, Slots>();
  readonly #returns = new Map<string, Coalescer<OutgoingJob, void>>();

  constructor(
    private readonly queues: QueueRegistry,
    private readonly operations: OperationStore,
    private readonly log: LibraryLog,
    @Optional() private readonly random: () => number = Math.random,
  ) {}

  /** From now on `worker.concurrency` counts operations, not BullMQ's jobs. */
  prepare(queue: string, worker: Worker): void {
    const bundle = this.queues.bundlesOf(queue);
    if (bundle !== undefined) this.#slots.set(worker, new Slots(worker, bundle.max));
  }

  /** Works off a bundle. Returns or throws what BullMQ understands. */
  async handle(bundle: DeliveredBundle): Promise<unknown> {
    const { job, token, carried, worker, limits } = bundle;
    const troubles: unknown[] = [];
    const cleared: string[] = [];
    const trouble = (error: unknown): void => void troubles.push(error);
    // What was made up never becomes a job: it is refused at once, or the bundle is put off until that has succeeded.
    const putBack = async (one: BundledJob, delayMs: number): Promise<void> =>
      isOurs(one) ? this.#putBack(job, one, delayMs).catch(trouble) : trouble(new NotRefusedError(one));
    const deliver = (one: BundledJob): Promise<void> => {
      try {
        const view = new BundledJobView(job, one);
        const end = (ack: Ack): Promise<void> | undefined => {
          const delayMs = returnDelayMs(ack, view, limits);
          if (view.isCleared) cleared.push(one.id);
          return delayMs === undefined ? undefined : putBack(one, delayMs);
        };
        return bundle.deliver(view).then(end).catch(trouble);
      } catch (error) {
        return Promise.resolve(trouble(error));
      }
    };
    const giveBack = (one: BundledJob, delayMs = 0): Promise<void> =>
      isOurs(one) ? putBack(one, delayMs) : deliver(one);
    const work = (one: BundledJob): Promise<void> => {
      const limitedMs = limits.leftMs(job.queueName);
      return limitedMs > 0 || worker.isPaused() ? giveBack(one, limitedMs) : deliver(one);
    };
    // The bundle has stalled: one of its operations may have killed its worker, and is found once each has a job of its own.
    const goesAlone = (one: BundledJob): boolean => job.stalledCounter > 0 && isOurs(one);
    const [alone, together] = [carried.filter(goesAlone), carried.filter((one) => !goesAlone(one))];
    await Promise.all(alone.map((one) => giveBack(one)));
    await this.#slotsOf(bundle).run(together, { work, giveBack, patienceMs: PATIENCE_MS });
    if (cleared.length > 0) await clear(job, cleared).catch(trouble);
    if (troubles.length === 0) return undefined;
    this.log.trouble(
      `A bundle of queue "${job.queueName}" comes again: part of it could not be dealt with`,
      troubles[0],
    );
    return acknowledge(job, token, { kind: 'defer', delayMs: 1000 + this.random() * 4000 });
  }

  /** Delivers a job that is no bundle, in a place of its worker if places are shared with bundles. */
  single(worker: Worker, deliver: () => Promise<unknown>): Promise<unknown> {
    const slots = this.#slots.get(worker);
    return slots === undefined ? deliver() : inPlace(slots, deliver);
  }

  /** Puts operations of a bundle on the queue by themselves. */
  async putBack(bundle: Job, carried: readonly BundledJob[]): Promise<void> {
    await Promise.all(carried.filter(isOurs).map((one) => this.#putBack(bundle, one, 0)));
  }

  /**
   * Puts the operations of a bundle on the queue by themselves, and takes the bundle off it: BullMQ has given it up. What was
   * made up is buried.
   */
  async scatter(
    bundle: Job,
    carried: readonly BundledJob[],
    bury: (job: Job) => Promise<void>,
  ): Promise<void> {
    await this.putBack(bundle, carried);
    for (const one of carried) if (!isOurs(one)) await bury(new BundledJobView(bundle, one));
    await this.#portOf(bundle).contents.remove(bundle.id ?? '', () => true);
  }

  /** Gives back what the workers have not begun. */
  drain(): void {
    for (const slots of this.#slots.values()) slots.drain();
  }

  /** Bundles may also come from processes that are told to make them, while this one is not. */
  #slotsOf({ worker, carried }: DeliveredBundle): Slots {
    let slots = this.#slots.get(worker);
    if (slots === undefined) {
      slots = new Slots(worker, carried.length);
      this.#slots.set(worker, slots);
    }
    return slots;
  }

  /** What is put back at one time goes together. */
  #putBack(bundle: Job, { id, name, data }: BundledJob, delayMs: number): Promise<void> {
    const port = this.#portOf(bundle);
    let returns = this.#returns.get(port.name);
    if (returns === undefined) {
      const put = async (jobs: OutgoingJob[]): Promise<void[]> => {
        await port.put(jobs);
        // See there for what its loss means.
        await this.operations.onPool(unbundle(jobs.map(identityIn))).catch(() => undefined);
        return jobs.map(() => undefined);
      };
      returns = new Coalescer<OutgoingJob, void>(put, ({ jobId }) => jobId);
      this.#returns.set(port.name, returns);
    }
    const priority = bundle.priority > 0 ? bundle.priority : undefined;
    const trace = isEnvelope(data) ? (data.operation.redriveTrace ?? data.operation.trace) : undefined;
    const isFirst = delayMs === 0;
    return returns.submit({ name, jobId: id, data, delayMs, priority, wasPut: true, isFirst, trace });
  }

  #portOf({ queueName }: Job): QueuePort {
    return this.queues.portOf(queueName) as QueuePort;
  }
}

async function inPlace(slots: Slots, deliver: () => Promise<unknown>): Promise<unknown> {
  let result: Promise<unknown> | undefined;
  const work = async (): Promise<void> => {
    result = deliver();
    await result.catch(() => undefined);
  };
  await slots.run([undefined], { work, giveBack: undefined, patienceMs: undefined });
  return result;
}

/** Takes out of a bundle what is never to be run, with its payload. */
async function clear(bundle: Job, ids: readonly string[]): Promise<void> {
  await bundle.updateData(withoutJobs(bundle.data, ids));
}

/** After how many ms the operation is to be delivered again. Undefined when it has ended. */
function returnDelayMs(ack: Ack, job: BundledJobView, limits: QueueLimits): number | undefined {
  if (wasMoved(job)) return Math.max(0, (job.returnsAt ?? 0) - Date.now());
  switch (ack.kind) {
    case 'done':
    case 'fail':
      return undefined;
    case 'retry':
    case 'defer':
      return ack.delayMs;
    case 'hand_back':
      return limits.leftMs(job.queueName);
    default:
      return ack satisfies never;
  }
}

/** Of an operation of the library's. */
function identityIn({ jobId: id, data }: OutgoingJob): OperationIdentity {
  const provenance = provenanceOf({ id, data });
  if (provenance.kind !== 'ours') throw new Error(`job "${printable(id)}" is no operation of the library's`);
  return provenance.identity;
}

/** Whether it is an operation of the library's. Everything else in a bundle was made up, and is refused, not put back. */
function isOurs({ id, data }: BundledJob): boolean {
  return provenanceOf({ id, data }).kind === 'ours';
}

class NotRefusedError extends Error {
  constructor({ id }: BundledJob) {
    super(`"${printable(id)}" is no operation of the library's, and its dead letter could not be written`);
  }
}

/** Operations that a worker has not begun by then are left to whoever is free. */
const PATIENCE_MS = 1_000;
