import { describe, expect, it } from 'vitest';
import { JobEvents } from '../../events/job-events.js';
import type { GaugeReader } from './gauge.reader.js';
import { MetricsLifecycle } from './metrics.lifecycle.js';
import type { MetricsAdapter } from './metrics.port.js';

const KNOWN = { queues: ['charges'], jobs: [], dependencies: [], isListed: () => true };
const gauges = {} as GaugeReader;
const ignore = (): void => undefined;

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
    new MetricsLifecycle([], events, gauges, ignore).start(KNOWN);
    expect(events.isObserved).toBe(false);
  });

  it('feeds all adapters while it runs, and lets go of all that it took', () => {
    const events = new JobEvents();
    const done: string[] = [];
    const lifecycle = new MetricsLifecycle([adapter(done, 'a'), adapter(done, 'b')], events, gauges, ignore);
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
    const lifecycle = new MetricsLifecycle([adapter(done, 'a'), broken], events, gauges, ignore);
    expect(() => lifecycle.start(KNOWN)).toThrow('the name is taken');
    expect(done).toEqual(['a opened', 'a closed']);
    expect(events.isObserved).toBe(false);
  });

  it('closes all others when one cannot be closed, and tells of it', () => {
    const events = new JobEvents();
    const done: string[] = [];
    const stuck: MetricsAdapter = {
      open: (readGauges) => ({
        ...adapter(done, 'stuck').open(readGauges),
        close() {
          throw new Error('busy');
        },
      }),
    };
    const problems: unknown[] = [];
    const lifecycle = new MetricsLifecycle([stuck, adapter(done, 'b')], events, gauges, (message, error) =>
      problems.push([message, error]),
    );
    lifecycle.start(KNOWN);
    lifecycle.stop();
    expect(done).toEqual(['stuck opened', 'b opened', 'b closed']);
    expect(problems).toEqual([['Metrics could not be closed', new Error('busy')]]);
    expect(events.isObserved).toBe(false);
  });
});
