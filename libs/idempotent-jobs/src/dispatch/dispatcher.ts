import { Inject, Injectable } from '@nestjs/common';
import { LibraryLog } from '../events/library-log.js';
import { RESOLVED_OPTIONS } from '../option-checks/resolved-options.token.js';
import { Due } from '../producer/due.js';
import { QueueRegistry } from '../producer/queue-registry.js';
import { outsideOfAnyFrame } from '../tenancy/frames.js';
import { LetterSource } from './letter.source.js';
import { OperationSource } from './operation.source.js';
import { OutboxRelay, pauseMs } from './outbox-relay.js';
import type { Tracing } from '../tracing/tracing.js';

/** The application's options that the dispatcher uses. */
interface DispatcherOptions {
  readonly dispatch: { readonly pollMs: number };
  readonly tracing: Pick<Tracing, 'detached'> | undefined;
}

/**
 * Decides when to look for committed rows that must get to BullMQ; the {@link OutboxRelay} of each source dispatches them.
 * Any number of instances may run.
 *
 * If a dispatcher is killed before the put, or between put and mark, the rows become due again when their reservation
 * ends. They are then put again under the same job id, which BullMQ ignores while it has the job. While BullMQ's backend
 * is out of reach, the rows stay in the ledger.
 */
@Injectable()
export class Dispatcher {
  readonly #relays: readonly OutboxRelay[];
  #timer: NodeJS.Timeout | undefined;
  #working: Promise<void> | undefined;
  #isWoken = false;
  #isStopped = true;
  /** How often in a row the ledger could not be read. */
  #failures = 0;

  constructor(
    operations: OperationSource,
    letters: LetterSource,
    queues: QueueRegistry,
    due: Due,
    private readonly log: LibraryLog,
    @Inject(RESOLVED_OPTIONS) private readonly options: DispatcherOptions,
  ) {
    this.#relays = [operations, letters].map((source) => new OutboxRelay(source, queues, this, log));
    due.onWake(() => {
      this.wake();
      return this.isRunning;
    });
  }

  get isRunning(): boolean {
    return !this.#isStopped;
  }

  start(): void {
    this.#isStopped = false;
    this.wake();
  }

  /** Looks for due rows soon, because there may be some now. */
  wake(): void {
    if (this.#isStopped) return;
    this.#isWoken = true;
    if (this.#working !== undefined) return;
    const { tracing } = this.options;
    // The rows that are dispatched have nothing to do with the frame or the trace of the caller that woke the dispatcher.
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
    const untilPollMs = this.#isWoken ? 0 : this.options.dispatch.pollMs;
    this.#timer = setTimeout(() => this.wake(), this.#failures === 0 ? untilPollMs : pauseMs(this.#failures));
    this.#timer.unref();
  }

  async #work(): Promise<void> {
    // Waits one turn of the event loop, so that what is enqueued together is dispatched together.
    await new Promise((resolve) => setImmediate(resolve));
    this.#isWoken = false;
    let isWell = true;
    for (const relay of this.#relays) {
      try {
        await relay.carry();
      } catch (error) {
        isWell = false;
        this.log.trouble('Dispatching was interrupted; it goes on by itself', error);
      }
    }
    this.#failures = isWell ? 0 : this.#failures + 1;
  }
}
