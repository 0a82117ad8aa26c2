import { Injectable } from '@nestjs/common';
import { OperationStore } from './operation.store.js';

/**
 * The one signal for "rows have been written that must get to BullMQ". The writer of such rows sends it after its commit,
 * and the dispatcher of this process listens. If a signal is lost, the dispatcher's next poll finds the rows.
 */
@Injectable()
export class Due {
  #wakeDispatcher = (): boolean => false;

  constructor(private readonly operations: OperationStore) {}

  /** `wake` returns whether the dispatcher runs. */
  onWake(wake: () => boolean): void {
    this.#wakeDispatcher = wake;
  }

  /** Wakes the dispatcher of this process. False when none is running here. */
  wake(): boolean {
    return this.#wakeDispatcher();
  }

  /** As {@link wake}; without a dispatcher in this process, it wakes those of the others through Postgres. */
  async announce(queue: string): Promise<void> {
    if (!this.wake()) await this.operations.announce(this.operations.onPool, queue);
  }
}
