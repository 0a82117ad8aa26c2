import { describe, expect, it } from 'vitest';
import type { Database } from '../../ledger/postgres/database.js';
import { type CircuitStateName, DEAD_LETTER_REASONS } from '../../operation/reasons.js';
import type { QueueRegistry } from '../../producer/queue-registry.js';
import type { Dependencies } from '../../resilience/dependency/dependencies.js';
import { GaugeReader } from './gauge.reader.js';
import type { GaugeReading } from './metrics.port.js';

const QUIET = {
  queues: () => ['charges', 'mails'],
  depthOf: async (_queue: string) => ({ waiting: 0, active: 0, delayed: 0, failed: 0 }),
  oldestWaitingMsOf: async (_queue: string): Promise<number | undefined> => undefined,
  ledger: async (): Promise<object[]> => [{ what: 'undispatched', many: 0, oldest_age: null }],
  dependencies: (): { name: string; circuit: CircuitStateName }[] => [],
};

function readerOf(sources: Partial<typeof QUIET>): GaugeReader {
  const { queues, depthOf, oldestWaitingMsOf, ledger, dependencies } = { ...QUIET, ...sources };
  return new GaugeReader(
    { run: ledger } as unknown as Database,
    {
      names: queues(),
      bundlesOf: () => undefined,
      contentsOf: (queue: string) => ({
        depth: () => depthOf(queue),
        oldestWaitingMs: () => oldestWaitingMsOf(queue),
      }),
    } as unknown as QueueRegistry,
    {
      get states() {
        return dependencies();
      },
    } as unknown as Dependencies,
  );
}

const read = async (sources: Partial<typeof QUIET>): Promise<string[]> =>
  (await readerOf(sources).read()).map(line).sort();

function line({ metric, labels, value }: GaugeReading): string {
  return `${metric.name} ${Object.values(labels).join(' ')} ${value}`.replaceAll('  ', ' ');
}

const failing = (): Promise<never> => Promise.reject(new Error('out of reach'));

describe('GaugeReader', () => {
  it('reads 0 for everything of the queues it knows, when there is nothing', async () => {
    expect(await read({})).toEqual(
      [
        'dispatch_oldest_age_seconds 0',
        'dispatch_pending 0',
        ...['charges', 'mails'].flatMap((queue) => [
          ...DEAD_LETTER_REASONS.map((reason) => `dead_letter_open ${queue} ${reason} 0`),
          ...['waiting', 'active', 'delayed', 'failed'].map((state) => `queue_depth ${queue} ${state} 0`),
          `dead_letter_oldest_age_seconds ${queue} 0`,
          `jobs_in_doubt ${queue} 0`,
          `jobs_in_doubt_oldest_age_seconds ${queue} 0`,
          `queue_oldest_message_age_seconds ${queue} 0`,
        ]),
      ].sort(),
    );
  });

  it('reads what waits in BullMQ, what is open and in doubt in the ledger, and where circuits stand', async () => {
    const lines = await read({
      queues: () => ['charges'],
      depthOf: async () => ({ waiting: 4, active: 3, delayed: 2, failed: 1 }),
      oldestWaitingMsOf: async () => 1_500,
      ledger: async () => [
        { what: 'letters', queue: 'charges', reason: 'permanent_error', many: 2, oldest_age: 9.5 },
        { what: 'letters', queue: 'charges', reason: 'in_doubt', many: 1, oldest_age: 20 },
        { what: 'doubts', queue: 'charges', many: 1, oldest_age: 21 },
        { what: 'undispatched', many: 7, oldest_age: 0.25 },
      ],
      dependencies: () => [
        { name: 'a', circuit: 'closed' },
        { name: 'b', circuit: 'half_open' },
        { name: 'c', circuit: 'open' },
        { name: 'd', circuit: 'forced_closed' },
        { name: 'e', circuit: 'forced_open' },
      ],
    });
    expect(lines.filter((text) => !/^dead_letter_open .* 0$/.test(text))).toEqual([
      'circuit_breaker_state a 0',
      'circuit_breaker_state b 1',
      'circuit_breaker_state c 2',
      'circuit_breaker_state d 0',
      'circuit_breaker_state e 2',
      'dead_letter_oldest_age_seconds charges 20',
      'dead_letter_open charges in_doubt 1',
      'dead_letter_open charges permanent_error 2',
      'dispatch_oldest_age_seconds 0.25',
      'dispatch_pending 7',
      'jobs_in_doubt charges 1',
      'jobs_in_doubt_oldest_age_seconds charges 21',
      'queue_depth charges active 3',
      'queue_depth charges delayed 2',
      'queue_depth charges failed 1',
      'queue_depth charges waiting 4',
      'queue_oldest_message_age_seconds charges 1.5',
    ]);
  });

  it('reads of a queue that is not registered here what the ledger has of it', async () => {
    const lines = await read({
      ledger: async () => [{ what: 'doubts', queue: '(calls)', many: 1, oldest_age: 3 }],
    });
    expect(lines.filter((text) => text.includes('(calls)'))).toEqual([
      'jobs_in_doubt (calls) 1',
      'jobs_in_doubt_oldest_age_seconds (calls) 3',
    ]);
  });

  it('never reads an age below 0, whatever the clocks say', async () => {
    const lines = await read({ ledger: async () => [{ what: 'undispatched', many: 1, oldest_age: -0.001 }] });
    expect(lines).toContain('dispatch_oldest_age_seconds 0');
  });

  it('leaves out the depths of a queue whose backend fails, and nothing else', async () => {
    const lines = await read({
      depthOf: (queue) => (queue === 'charges' ? failing() : QUIET.depthOf(queue)),
    });
    expect(lines.some((text) => text.startsWith('queue_depth charges'))).toBe(false);
    expect(lines.some((text) => text.startsWith('queue_oldest_message_age_seconds charges'))).toBe(false);
    expect(lines).toContain('queue_depth mails waiting 0');
    expect(lines).toContain('jobs_in_doubt charges 0');
  });

  it('leaves out everything of the ledger when it fails, and nothing else', async () => {
    const lines = await read({ ledger: failing, dependencies: () => [{ name: 'gateway', circuit: 'open' }] });
    expect(new Set(lines.map((text) => text.split(' ')[0]))).toEqual(
      new Set(['queue_depth', 'queue_oldest_message_age_seconds', 'circuit_breaker_state']),
    );
  });

  it('asks once for any number of scrapes within 10 s, and reads circuits anew for each', async () => {
    let asked = 0;
    let state: 'open' | 'closed' = 'closed';
    const reader = readerOf({
      queues: () => ['charges'],
      ledger: async () => {
        asked += 1;
        return [];
      },
      depthOf: async () => {
        asked += 1;
        return { waiting: 0, active: 0, delayed: 0, failed: 0 };
      },
      dependencies: () => [{ name: 'gateway', circuit: state }],
    });
    await Promise.all([reader.read(), reader.read()]);
    state = 'open';
    expect((await reader.read()).map(line)).toContain('circuit_breaker_state gateway 2');
    expect(asked).toBe(2);
  });
});
