import type { QueuePort } from '../bullmq/queue-port.js';
import { outsideOfAnyFrame } from '../tenancy/outside-of-any-frame.js';
import { OutboxRelay, pauseMs } from './outbox-relay.js';
import type { Tracing } from '../tracing/tracing.js';
import type { DispatchSource } from './dispatch.source.js';

/** What the dispatcher needs to know about the application. */
export interface DispatcherServices {
  readonly sources: readonly DispatchSource[];
  /** The source queues this process serves; rows of others are left to whoever serves them. */
  readonly queues: () => readonly string[];
  readonly portOf: (queue: string) => QueuePort | undefined;
  readonly onError: (message: string, error: unknown) => void;
  readonly pollMs: number;
  readonly tracing?: Pick<Tracing, 'detached'> | undefined;
}

/**
 * Decides when to look for committed rows that must get to BullMQ; each source's {@link OutboxRelay} carries them. Any
 * number of instances may run.
 *
 * Killed before the put, or between put and mark, the rows fall due again when their hold ends and are put again,
 * under the same job id, which BullMQ ignores while it has the job. With BullMQ's backend out of reach the rows stay.
 */
export class Dispatcher {
  readonly #relays: readonly OutboxRelay[];
  #timer: NodeJS.Timeout | undefined;
  #working: Promise<void> | undefined;
  #isWoken = false;
  #isStopped = true;
  /** How often in a row the ledger could not be read. */
  #failures = 0;

  constructor(private readonly services: DispatcherServices) {
    const { sources, queues, portOf, onError } = services;
    const isStopped = (): boolean => this.#isStopped;
    const onFree = (): void => this.wake();
    this.#relays = sources.map(
      (source) => new OutboxRelay(source, { queues, portOf, onError, isStopped, onFree }),
    );
  }

  get isRunning(): boolean {
    return !this.#isStopped;
  }

  start(): void {
    this.#isStopped = false;
    this.wake();
  }

  /** Something may be due now. */
  wake(): void {
    if (this.#isStopped) return;
    this.#isWoken = true;
    if (this.#working !== undefined) return;
    const { tracing } = this.services;
    // Whoever wakes it has nothing to do with what it carries, now and for ever after.
    outsideOfAnyFrame(() => (tracing === undefined ? this.#begin() : tracing.detached(() => this.#begin())));
  }

  #begin(): void {
    this.#working = this.#work().finally(() => {
      this.#working = undefined;
      this.#rest();
    });
  }

  /** Finishes the batches under way and stops. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    await this.#working;
    await Promise.all(this.#relays.map((relay) => relay.drain()));
  }

  #rest(): void {
    clearTimeout(this.#timer);
    if (this.#isStopped) return;
    const untilPollMs = this.#isWoken ? 0 : this.services.pollMs;
    this.#timer = setTimeout(() => this.wake(), this.#failures === 0 ? untilPollMs : pauseMs(this.#failures));
    this.#timer.unref();
  }

  async #work(): Promise<void> {
    // A tick's grace, so that what is enqueued together is dispatched together.
    await new Promise((resolve) => setImmediate(resolve));
    this.#isWoken = false;
    let isWell = true;
    for (const relay of this.#relays) {
      try {
        await relay.carry();
      } catch (error) {
        isWell = false;
        this.services.onError('Dispatching was interrupted; it goes on by itself', error);
      }
    }
    this.#failures = isWell ? 0 : this.#failures + 1;
  }
}
