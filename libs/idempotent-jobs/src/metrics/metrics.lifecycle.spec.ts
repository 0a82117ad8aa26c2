import { describe, expect, it } from 'vitest';
import { JobEvents } from '../observe/job-events.js';
import type { GaugeReader } from './gauge.reader.js';
import { MetricsLifecycle } from './metrics.lifecycle.js';
import type { MetricsAdapter } from './metrics.port.js';

const KNOWN = { queues: ['charges'], jobs: [], dependencies: [] };
const gauges = {} as GaugeReader;

/** Notes what is done with it. */
function adapter(done: string[], name: string): MetricsAdapter {
  return {
    open() {
      done.push(`${name} opened`);
      return {
        counter: ({ name: metric }) => ({ increment: () => done.push(`${name} ${metric}`) }),
        histogram: () => ({ record: () => undefined }),
        close: () => done.push(`${name} closed`),
      };
    },
  };
}

describe('MetricsLifecycle', () => {
  it('subscribes nobody without an adapter', () => {
    const events = new JobEvents();
    new MetricsLifecycle([], events, gauges).start(KNOWN);
    expect(events.isObserved).toBe(false);
  });

  it('feeds all adapters while it runs, and lets go of all that it took', () => {
    const events = new JobEvents();
    const done: string[] = [];
    const lifecycle = new MetricsLifecycle([adapter(done, 'a'), adapter(done, 'b')], events, gauges);
    lifecycle.start(KNOWN);
    const event = { kind: 'fence_rejected', queue: 'charges', jobName: 'n', jobId: '1', attempt: 1 } as const;
    events.emit(event);
    lifecycle.stop();
    lifecycle.stop();
    events.emit(event);
    expect(done).toEqual([
      'a opened',
      'b opened',
      'a fence_rejected_total',
      'b fence_rejected_total',
      'a closed',
      'b closed',
    ]);
    expect(events.isObserved).toBe(false);
  });

  it('leaves no adapter open when one cannot be opened, and says why', () => {
    const events = new JobEvents();
    const done: string[] = [];
    const broken: MetricsAdapter = {
      open() {
        throw new Error('the name is taken');
      },
    };
    const lifecycle = new MetricsLifecycle([adapter(done, 'a'), broken], events, gauges);
    expect(() => lifecycle.start(KNOWN)).toThrow('the name is taken');
    expect(done).toEqual(['a opened', 'a closed']);
    expect(events.isObserved).toBe(false);
  });
});
