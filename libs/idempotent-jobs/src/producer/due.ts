import { Injectable } from '@nestjs/common';
import { OperationStore } from './operation.store.js';

/**
 * The one signal for "rows have been written that must get to BullMQ". Whoever has written some says so here, after its
 * commit; the dispatcher of this process listens. Where a signal is lost, the dispatcher's next look finds the rows.
 */
@Injectable()
export class Due {
  #wakeDispatcher = (): boolean => false;

  constructor(private readonly operations: OperationStore) {}

  /** `wake` answers whether the dispatcher runs. */
  onWake(wake: () => boolean): void {
    this.#wakeDispatcher = wake;
  }

  /** Wakes the dispatcher of this process. False: it has none that runs. */
  wake(): boolean {
    return this.#wakeDispatcher();
  }

  /** As {@link wake}; where this process has no dispatcher, the others are told, through Postgres. */
  async announce(queue: string): Promise<void> {
    if (!this.wake()) await this.operations.announce(this.operations.onPool, queue);
  }
}
