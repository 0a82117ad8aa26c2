import { Worker } from 'bullmq';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { frames } from '../../tenancy/frames.js';
import { Slots } from './slots.js';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

/** A worker that only knows how many jobs BullMQ lets it hold. */
function workerOf(concurrency: number): { worker: Worker; jobs: () => number } {
  const worker = Object.create(Worker.prototype) as Worker;
  worker.concurrency = concurrency;
  return { worker, jobs: () => Reflect.get(worker, '_concurrency') as number };
}

/** Work that ends when it is told so. */
function desk() {
  const open = new Map<number, () => void>();
  const returned: number[] = [];
  const begun: number[] = [];
  return {
    begun,
    returned,
    end: (operation: number) => open.get(operation)?.(),
    means: (patienceMs?: number) => ({
      work: (operation: number) =>
        new Promise<void>((resolve) => {
          begun.push(operation);
          open.set(operation, resolve);
        }),
      giveBack: async (operation: number) => void returned.push(operation),
      patienceMs,
    }),
  };
}

const numbers = (count: number, from = 0): number[] => Array.from({ length: count }, (_, n) => from + n);
const settle = (): Promise<unknown> => vi.advanceTimersByTimeAsync(0);

describe('Slots', () => {
  it('begin as many operations as the concurrency says, and the next one when one ends', async () => {
    const { worker } = workerOf(3);
    const { begun, end, means } = desk();
    const run = new Slots(worker, 50).run(numbers(5), means());
    expect(begun).toEqual([0, 1, 2]);
    end(1);
    await settle();
    expect(begun).toEqual([0, 1, 2, 3]);
    for (const operation of [0, 2, 3]) end(operation);
    await settle();
    expect(begun).toEqual([0, 1, 2, 3, 4]);
    end(4);
    await run;
  });

  it('let BullMQ take another job only while a place is free, as many as may fill the places', async () => {
    const { worker, jobs } = workerOf(10);
    const slots = new Slots(worker, 5);
    expect(jobs()).toBe(2);
    const { begun, end, means } = desk();
    const runs = [slots.run(numbers(5), means())];
    expect(jobs()).toBe(1 + 1);
    runs.push(slots.run(numbers(5, 5), means()));
    expect(jobs()).toBe(2);
    end(0);
    await settle();
    expect(jobs()).toBe(2 + 1);
    runs.push(slots.run(numbers(5, 10), means()));
    expect(jobs()).toBe(3);
    for (let operation = 0; operation < 15; operation += 1) {
      end(operation);
      await settle();
    }
    await Promise.all(runs);
    expect(begun).toHaveLength(15);
    expect(jobs()).toBe(2);
  });

  it('let single jobs come as they did: one more than there are, up to the concurrency', async () => {
    const { worker, jobs } = workerOf(4);
    const slots = new Slots(worker, 50);
    const { end, means } = desk();
    const runs: Promise<void>[] = [];
    for (let n = 0; n < 4; n += 1) {
      expect(jobs()).toBeGreaterThan(n);
      runs.push(slots.run([n], means()));
    }
    for (let n = 0; n < 4; n += 1) end(n);
    await Promise.all(runs);
  });

  it('keep what worker.concurrency says, and follow when it is changed', async () => {
    const { worker } = workerOf(1);
    const slots = new Slots(worker, 2);
    expect(worker.concurrency).toBe(1);
    const { begun, end, means } = desk();
    const run = slots.run(numbers(4), means());
    worker.concurrency = 3;
    expect(worker.concurrency).toBe(3);
    end(0);
    await settle();
    expect(begun).toEqual([0, 1, 2, 3]);
    expect(() => (worker.concurrency = 0)).toThrow('concurrency must be');
    expect(worker.concurrency).toBe(3);
    for (const operation of begun) end(operation);
    await run;
  });

  it('give back what has waited for too long, and nothing that has begun, or came later', async () => {
    const { worker } = workerOf(1);
    const slots = new Slots(worker, 50);
    const { begun, returned, end, means } = desk();
    const first = slots.run(numbers(3), means(1000));
    await vi.advanceTimersByTimeAsync(600);
    const second = slots.run(numbers(2, 3), means(1000));
    await vi.advanceTimersByTimeAsync(600);
    expect({ begun, returned }).toEqual({ begun: [0], returned: [1, 2] });
    end(0);
    await first;
    expect(begun).toEqual([0, 3]);
    await vi.advanceTimersByTimeAsync(600);
    expect(returned).toEqual([1, 2, 4]);
    end(3);
    await second;
  });

  it('give back everything that has not begun when the worker stops, and what comes afterwards', async () => {
    const { worker } = workerOf(2);
    const slots = new Slots(worker, 50);
    const { begun, returned, end, means } = desk();
    const runs = [slots.run(numbers(4), means(1000))];
    slots.drain();
    runs.push(slots.run(numbers(2, 4), means(1000)));
    end(0);
    end(1);
    await Promise.all(runs);
    expect({ begun, returned }).toEqual({ begun: [0, 1], returned: [2, 3, 4, 5] });
  });

  it('begin nothing in the frame of what has ended', async () => {
    const { worker } = workerOf(1);
    const seen: unknown[] = [];
    const work = (tenantId: string): Promise<void> => {
      seen.push(frames.getStore());
      return frames.run({ owner: worker, tenantId, operation: undefined }, async () => {
        await Promise.resolve();
      });
    };
    await new Slots(worker, 2).run(['acme', 'globex'], {
      work,
      giveBack: async () => undefined,
      patienceMs: undefined,
    });
    expect(seen).toEqual([undefined, undefined]);
  });

  it('keep in mind when the next delayed job is due, also when a job ends and no other one is fetched', () => {
    const { worker } = workerOf(3);
    expect(new Slots(worker, 50)).toBeDefined();
    const seen = worker as unknown as Delays;
    const dueAt = Date.now() + 50;
    seen.updateDelays(0, dueAt);
    seen.updateDelays(undefined, undefined);
    expect(seen.blockUntil).toBe(dueAt);
    seen.updateDelays(0, 0);
    expect(seen.blockUntil).toBe(dueAt);
    // The worker begins to wait for it.
    seen.updateDelays();
    expect(seen.blockUntil).toBe(0);
    seen.updateDelays(0, dueAt);
    vi.setSystemTime(dueAt + 1);
    seen.updateDelays(0, 0);
    expect(seen.blockUntil).toBe(0);
  });
});

/** BullMQ's own note of when it looks again. */
interface Delays {
  readonly blockUntil: number;
  updateDelays(limitMs?: number, dueAt?: number): void;
}
