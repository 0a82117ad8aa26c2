import type { JobEvents } from '../../events/job-events.js';
import type { GaugeReader } from './gauge.reader.js';
import type { MetricsAdapter, OpenMetrics } from './metrics.port.js';
import { type KnownNames, MetricsSubscriber } from './metrics.subscriber.js';

/**
 * Opens the application's metrics adapters, feeds them while it runs, and closes them. Without adapters it does nothing.
 */
export class MetricsLifecycle {
  readonly #running: { readonly metrics: OpenMetrics; unsubscribe: () => void }[] = [];

  constructor(
    private readonly adapters: readonly MetricsAdapter[],
    private readonly events: JobEvents,
    private readonly gauges: GaugeReader,
    private readonly onError: (message: string, error: unknown) => void,
  ) {}

  /** @throws what an adapter throws; the adapters opened before are then closed again */
  start(known: KnownNames): void {
    try {
      for (const adapter of this.adapters) {
        const metrics = adapter.open(() => this.gauges.read());
        const running = { metrics, unsubscribe: (): void => undefined };
        this.#running.push(running);
        running.unsubscribe = this.events.subscribe(new MetricsSubscriber(metrics, known).count);
      }
    } catch (error) {
      this.stop();
      throw error;
    }
  }

  /** A second call does nothing. If one adapter fails to close, the others are still closed. */
  stop(): void {
    for (const { metrics, unsubscribe } of this.#running.splice(0)) {
      unsubscribe();
      try {
        metrics.close();
      } catch (error) {
        this.onError('Metrics could not be closed', error);
      }
    }
  }
}
