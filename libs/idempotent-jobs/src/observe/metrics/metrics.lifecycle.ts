import type { JobEvents } from '../../events/job-events.js';
import type { GaugeReader } from './gauge.reader.js';
import type { MetricsAdapter, OpenMetrics } from './metrics.port.js';
import { type KnownNames, MetricsSubscriber } from './metrics.subscriber.js';

/** Opens the adapters that the application was given, and feeds them for as long as it runs. Without any it does nothing. */
export class MetricsLifecycle {
  readonly #running: { readonly metrics: OpenMetrics; unsubscribe: () => void }[] = [];

  constructor(
    private readonly adapters: readonly MetricsAdapter[],
    private readonly events: JobEvents,
    private readonly gauges: GaugeReader,
    private readonly onError: (message: string, error: unknown) => void,
  ) {}

  /** @throws whatever an adapter throws; none is left open then */
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

  /** Again: nothing. An adapter that cannot be closed keeps no other one open. */
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
