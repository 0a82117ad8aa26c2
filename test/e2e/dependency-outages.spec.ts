import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { INestApplicationContext } from '@nestjs/common';
import type { IdempotentJobsOptions, IdempotentProcessorOptions } from 'nestjs-idempotent-jobs';
import { DependencyGuard } from 'nestjs-idempotent-jobs/dependencies';
import { type JobEvent, JobEvents } from 'nestjs-idempotent-jobs/observe';
import { type LedgerEntry, type RunningSimulator, startSimulator } from 'simulator';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { charge } from '../support/gateway.js';
import { idempotentQueue, lettersOf, outcomeOf, settled } from '../support/ledger.js';
import { fallingBackProcessorOf, processorOf } from '../support/processors.js';
import { BACKENDS } from '../support/scenario.js';

/*
 * A gateway in trouble, as a process of its own: what arrives there is what was really called. Its faults are scripted;
 * what the library makes of them is not.
 */

let simulator: RunningSimulator;
beforeAll(async () => {
  simulator = await startSimulator();
});
afterAll(() => simulator.stop());

/** A minute's numbers in seconds: opens after eight failures of sixteen calls, for 2 s, then 4 s. */
const QUICK_BREAKER = { windowMs: 10_000, minimumCalls: 16, openMs: 2_000, maxOpenMs: 4_000 };
const RETRIES = { attempts: 50, backoff: { baseMs: 100, capMs: 1_000 } };
const WORKER = { concurrency: 50, lockDuration: 30_000, stalledInterval: 5_000 };
const MANY = 200;

/** What happened, in the order it did. */
interface Story {
  readonly app: INestApplicationContext;
  readonly run: string;
  readonly events: JobEvent[];
  /** When attempts after the first were started, in ms. */
  readonly retriedAt: number[];
  count(kind: JobEvent['kind']): number;
  /** What arrived at the gateway. */
  arrivals(): Promise<LedgerEntry[]>;
  enqueue(count: number): Promise<string[]>;
  /** Waits until all of them have completed. */
  completed(keys: readonly string[]): Promise<void>;
}

describe.each(BACKENDS)('a gateway in trouble, on %s', (backend) => {
  const apps = useApps();

  const begin = async (
    jobs: IdempotentJobsOptions,
    options: IdempotentProcessorOptions,
    fallback?: () => unknown,
  ): Promise<Story> => {
    const run = randomUUID();
    const asked = { effect: 'keyed', retry: RETRIES, dependency: 'gateway', ...options } as const;
    const call = (_job: unknown, operation: Parameters<typeof charge>[2], signal: AbortSignal): unknown =>
      charge(simulator, run, operation, signal);
    const processor =
      fallback === undefined
        ? processorOf('charges', asked, call, WORKER)
        : fallingBackProcessorOf('charges', asked, call, fallback, WORKER);
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor], jobs });
    const events: JobEvent[] = [];
    const retriedAt: number[] = [];
    app.get(JobEvents).subscribe((event) => {
      events.push(event);
      if (event.kind === 'started' && event.attempt > 1) retriedAt.push(performance.now());
    });
    return {
      app,
      run,
      events,
      retriedAt,
      count: (kind) => events.filter((event) => event.kind === kind).length,
      arrivals: async () =>
        (await simulator.client.ledger(run)).filter(({ service }) => service === 'charge'),
      async enqueue(count) {
        const keys = Array.from({ length: count }, (_none, index) => `charge:${index}`);
        await idempotentQueue(app, 'charges').enqueueMany(
          keys.map((operationKey) => ({ name: 'charge', payload: {}, operationKey, tenantId: 'acme' })),
        );
        return keys;
      },
      async completed(keys) {
        await Promise.all(
          keys.map(async (operationKey) =>
            expect(await settled(app, operationKey)).toMatchObject({ operationKey, status: 'completed' }),
          ),
        );
      },
    };
  };

  const effects = (arrivals: readonly LedgerEntry[]): Map<string | null, number> => {
    const counts = new Map<string | null, number>();
    for (const { effect, key } of arrivals) if (effect) counts.set(key, (counts.get(key) ?? 0) + 1);
    return counts;
  };

  it('answers nothing for 10 s under 200 jobs: attempts stand still, a few probes look, and all complete once it is well', async () => {
    const story = await begin(
      {
        dependencies: {
          gateway: {
            timeoutMs: 2_000,
            breaker: { ...QUICK_BREAKER, openMs: 1_000, maxOpenMs: 2_000 },
            retryBudget: { minPerSecond: 30 },
          },
        },
      },
      {},
    );
    const hangs = { run: story.run, service: 'charge', kinds: ['hang'], rate: 1 } as const;
    await simulator.client.faults({ ...hangs, maxFaultsPerSubject: 1_000 });
    const brokenAt = performance.now();
    const keys = await story.enqueue(MANY);
    const guard = story.app.get(DependencyGuard);
    await circuitBecomes(guard, 'open');
    // What was under way when it opened arrives all the same.
    await eventually(
      () => guard.stateOf('gateway').active,
      (active) => expect(active).toBe(0),
    );
    const first = (await story.arrivals()).length;
    const countedAt = performance.now();
    // No more than were under way before the failures were known, and those that took their places.
    expect(first).toBeLessThanOrEqual(2 * WORKER.concurrency);

    const probesSoFar = async (): Promise<number> => (await story.arrivals()).length - first;
    await eventually(probesSoFar, (count) => expect(count).toBeGreaterThanOrEqual(2));
    await eventually(
      () => story.count('deferred'),
      (count) => expect(count).toBeGreaterThanOrEqual(MANY - first),
    );
    await sleep(Math.max(0, 10_000 - (performance.now() - brokenAt)));
    const probes = await probesSoFar();
    // 1 s, then every 2 s, each up to a fifth shorter, and the 2 s that a probe takes.
    expect(probes).toBeLessThanOrEqual(2 + (performance.now() - countedAt) / 3_600);
    const attempts = await Promise.all(
      keys.map(async (key) => (await outcomeOf(story.app, key))?.attempts ?? 0),
    );
    // Waiting spends no attempt. What was sent spends one, also where it never arrives, or only after we have counted.
    const spent = attempts.reduce((sum, count) => sum + count, 0);
    expect(spent).toBeGreaterThanOrEqual(first + probes);
    expect(spent).toBeLessThanOrEqual(first + probes + WORKER.concurrency);

    await simulator.client.clearFaults(story.run);
    await story.completed(keys);
    expect(await lettersOf(story.app)).toEqual([]);
    const seen = effects(await story.arrivals());
    expect(seen.size).toBe(MANY);
    expect([...seen.values()].every((count) => count === 1)).toBe(true);
  }, 240_000);

  it('fails for three calls in ten: retries are a tenth of the first tries and the floor, and all complete', async () => {
    const story = await begin(
      { dependencies: { gateway: { breaker: false, retryBudget: { ratio: 0.1, minPerSecond: 1 } } } },
      {},
    );
    const fails = { run: story.run, service: 'charge', kinds: ['refused'], rate: 0.3, seed: 7 } as const;
    await simulator.client.faults({ ...fails, maxFaultsPerSubject: 1 });
    const count = 100;
    const startedAt = performance.now();
    const keys = await story.enqueue(count);
    await story.completed(keys);
    const seconds = (performance.now() - startedAt) / 1_000;
    const arrivals = await story.arrivals();
    const failed = arrivals.filter(({ outcome }) => outcome === 'refused').length;
    expect(failed).toBeGreaterThan(count * 0.2);
    expect(arrivals.length).toBe(count + failed);
    expect(story.count('retry_budget_denied')).toBeGreaterThan(0);
    expect(story.retriedAt).toHaveLength(failed);
    // What was let through within ten seconds may have been begun within fewer, where the ledger was slow.
    expect(retriesInAnyWindow(story.retriedAt, 6_000)).toBeLessThanOrEqual(count * 0.1 + 10);
    // What does not fit into one window waits for the floor: one retry a second.
    expect(seconds).toBeGreaterThan((failed - count * 0.1 - 10) * 0.8);
  }, 120_000);

  it('flaps: the circuit opens each time, calls are few while it is down, and all complete', async () => {
    const breaker = { windowMs: 5_000, minimumCalls: 10, openMs: 500, maxOpenMs: 1_000 };
    const story = await begin(
      { dependencies: { gateway: { timeoutMs: 10_000, breaker, retryBudget: { minPerSecond: 100 } } } },
      {},
    );
    const down = { run: story.run, service: 'charge', kinds: ['refused'], rate: 1 } as const;
    const keys: string[] = [];
    for (let flap = 0; flap < 3; flap += 1) {
      await simulator.client.faults({ ...down, maxFaultsPerSubject: 1_000 });
      const some = Array.from({ length: 60 }, (_none, index) => `charge:${flap}:${index}`);
      keys.push(...some);
      await idempotentQueue(story.app, 'charges').enqueueMany(
        some.map((operationKey) => ({ name: 'charge', payload: {}, operationKey, tenantId: 'acme' })),
      );
      const guard = story.app.get(DependencyGuard);
      await circuitBecomes(guard, 'open');
      // What was under way when it opened arrives all the same.
      await eventually(
        () => guard.stateOf('gateway').active,
        (active) => expect(active).toBe(0),
      );
      const before = (await story.arrivals()).length;
      const lookedAt = performance.now();
      await sleep(1_500);
      const probes = (await story.arrivals()).length - before;
      // A probe each half second at the most, up to a fifth shorter.
      expect(probes).toBeLessThanOrEqual(1 + (performance.now() - lookedAt) / 400);
      await simulator.client.clearFaults(story.run);
      await circuitBecomes(guard, 'closed');
    }
    await story.completed(keys);
    const opened = story.events.filter((event) => event.kind === 'circuit_changed' && event.state === 'open');
    expect(opened.length).toBeGreaterThanOrEqual(3);
    expect(await lettersOf(story.app)).toEqual([]);
    expect(effects(await story.arrivals()).size).toBe(keys.length);
  }, 120_000);

  it('asks for a pause with 429 and Retry-After: nobody calls for that operation before it is over', async () => {
    const story = await begin({ dependencies: { gateway: { breaker: false, retryBudget: false } } }, {});
    const keys = Array.from({ length: 20 }, (_none, index) => `charge:${index}`);
    await simulator.client.script({
      run: story.run,
      service: 'charge',
      steps: keys.flatMap(() => ['throttled', 'throttled'] as const),
      retryAfterSeconds: 2,
    });
    await story.enqueue(keys.length);
    await story.completed(keys);
    const arrivals = await story.arrivals();
    const throttled = arrivals.filter(({ outcome }) => outcome === 'throttled');
    expect(throttled).toHaveLength(2 * keys.length);
    for (const { key, at, number } of throttled) {
      const next = arrivals.find((entry) => entry.key === key && entry.number > number) as LedgerEntry;
      // The arrival is dated before its answer, and the pause counts from the answer.
      expect(Date.parse(next.at) - Date.parse(at)).toBeGreaterThanOrEqual(2_000);
    }
  });

  it('stays down for longer than the time budget: the operation ends in a letter that says so, tried or not', async () => {
    const story = await begin(
      { dependencies: { gateway: { breaker: QUICK_BREAKER, retryBudget: { minPerSecond: 100 } } } },
      { timeBudgetMs: 4_000 },
    );
    const down = { run: story.run, service: 'charge', kinds: ['refused'], rate: 1 } as const;
    await simulator.client.faults({ ...down, maxFaultsPerSubject: 1_000 });
    const keys = await story.enqueue(60);
    await Promise.all(keys.map(async (key) => expect((await settled(story.app, key)).status).toBe('dead')));
    const letters = await lettersOf(story.app);
    expect(letters).toHaveLength(60);
    const reasons = new Set(letters.map(({ reason }) => reason));
    expect(reasons).toContain('time_budget_exceeded');
    // Those that the open circuit kept from their first attempt, from which the budget counts.
    expect(
      [...reasons].every((reason) => reason === 'time_budget_exceeded' || reason === 'deferred_too_long'),
    ).toBe(true);
    // One that was never tried may also have come through at last, when its time was over.
    const arrived = new Set((await story.arrivals()).map(({ key }) => key));
    const deferred = letters.filter(({ reason }) => reason === 'deferred_too_long');
    for (const { operation_key: key } of deferred)
      expect({ key, tried: arrived.has(key) }).toEqual({ key, tried: false });
  });

  it('is stood in for while its circuit is open: completed at once, counted, and marked as degraded', async () => {
    const story = await begin({ dependencies: { gateway: { breaker: QUICK_BREAKER } } }, {}, () => ({
      later: true,
    }));
    story.app.get(DependencyGuard).forceOpen('gateway');
    const keys = await story.enqueue(10);
    await story.completed(keys);
    expect(await story.arrivals()).toEqual([]);
    expect(await outcomeOf(story.app, 'charge:3')).toMatchObject({
      status: 'completed',
      result: { later: true },
      degraded: 'gateway: circuit_open',
    });
    // An event comes after its row.
    await eventually(
      () => story.count('fallback_used'),
      (uses) => expect(uses).toBe(10),
    );

    story.app.get(DependencyGuard).resetCircuit('gateway');
    await idempotentQueue(story.app, 'charges').enqueue(
      'charge',
      {},
      { operationKey: 'charge:10', tenantId: 'acme' },
    );
    expect(await settled(story.app, 'charge:10')).toMatchObject({ status: 'completed', degraded: undefined });
    expect(await story.arrivals()).toHaveLength(1);
  });
});

/** The most retries that were begun within any such time. */
function retriesInAnyWindow(retriedAt: readonly number[], windowMs: number): number {
  return Math.max(
    0,
    ...retriedAt.map((end) => retriedAt.filter((at) => at <= end && at > end - windowMs).length),
  );
}

async function circuitBecomes(guard: DependencyGuard, state: 'open' | 'closed'): Promise<void> {
  await eventually(
    () => guard.stateOf('gateway').circuit,
    (circuit) => expect(circuit).toBe(state),
  );
}
