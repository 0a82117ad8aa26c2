import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { OutgoingJob, QueuePort } from '../bullmq/queue-port.js';
import type { LibraryLog } from '../events/library-log.js';
import type { Due } from '../producer/due.js';
import type { QueueRegistry } from '../producer/queue-registry.js';
import { alone, type DispatchSource, type DueJob } from './outbox-relay.js';
import { Dispatcher } from './dispatcher.js';
import type { LetterSource } from './letter.source.js';
import type { OperationSource } from './operation.source.js';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

function due(queue: string, ...ids: string[]): DueJob[] {
  return ids.map((jobId) => ({
    queue,
    row: `row of ${jobId}`,
    job: { name: 'charge', jobId, data: {}, delayMs: 0, priority: undefined },
  }));
}

const many = (count: number): DueJob[] =>
  due('charges', ...Array.from({ length: count }, (_, index) => `job-${index}`));

const ids = (jobs: readonly OutgoingJob[]): string => jobs.map(({ jobId }) => jobId).join(' ');

/** Each row has a job of its own. */
const group: DispatchSource['group'] = async (_port, jobs) => ({ parcels: alone(jobs), there: [] });

/** A source without rows. */
const NOTHING_DUE: DispatchSource = {
  carriesRetries: false,
  targetOf: (queue) => queue,
  group,
  take: async () => [],
  mark: async () => undefined,
};

function dispatcherOf(
  [operations, letters = NOTHING_DUE]: readonly DispatchSource[],
  queues: Pick<QueueRegistry, 'names' | 'portOf'>,
  trouble: (message: string, error?: unknown) => void,
): Dispatcher {
  return new Dispatcher(
    operations as OperationSource,
    letters as LetterSource,
    queues as QueueRegistry,
    { onWake: () => undefined } as unknown as Due,
    { trouble } as LibraryLog,
    { dispatch: { pollMs: 1_000 }, tracing: undefined },
  );
}

/** A world of one or two queues and one source, which writes down what is done to it. */
function make({ queues = ['charges'], carriesRetries = true } = {}) {
  const log: string[] = [];
  const takes: { limit: number; holdMs: number; queues: readonly string[] }[] = [];
  const errors: [string, unknown][] = [];
  const rounds: DueJob[][] = [];
  const world = {
    put: (_jobs: readonly OutgoingJob[]): Promise<void> => Promise.resolve(),
    ping: (): Promise<void> => Promise.resolve(),
    take: (_names: readonly string[]): Promise<DueJob[]> => Promise.resolve(rounds.shift() ?? []),
    queues,
  };
  const source: DispatchSource = {
    carriesRetries,
    targetOf: (queue) => queue,
    group,
    take: async (names, limit, holdMs) => {
      takes.push({ queues: names, limit, holdMs });
      const jobs = await world.take(names);
      if (jobs.length > 0) log.push(`take ${jobs.length}`);
      return jobs;
    },
    mark: async (jobs) => void log.push(`mark ${ids(jobs.map(({ job }) => job))}`),
  };
  const portOf = (queue: string): QueuePort | undefined => {
    if (queue === 'unserved') return undefined;
    const port = {
      name: queue,
      put: (jobs: readonly OutgoingJob[], retries: boolean) => {
        log.push(`put ${queue} ${ids(jobs)}${retries ? '' : ' without retries'}`);
        return world.put(jobs);
      },
      ping: () => world.ping(),
    };
    return port as unknown as QueuePort;
  };
  const registry = {
    get names() {
      return world.queues;
    },
    portOf,
  };
  const dispatcher = dispatcherOf([source], registry, (message, error) => errors.push([message, error]));
  return { dispatcher, world, rounds, log, takes, errors };
}

const refusal = new Error('job 2 is too large');

describe('Dispatcher: carrying', () => {
  it('takes, puts, and marks last, so that a crash in between puts again what may be missing', async () => {
    const { dispatcher, rounds, log } = make();
    rounds.push(due('charges', 'a', 'b'));
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(10);
    expect(log).toEqual(['take 2', 'put charges a b', 'mark a b']);
  });

  it('marks only when the put has been answered', async () => {
    const { dispatcher, world, rounds, log } = make();
    let answer = (): void => undefined;
    world.put = () => new Promise((resolve) => (answer = resolve));
    rounds.push(due('charges', 'a'));
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(500);
    expect(log).toEqual(['take 1', 'put charges a']);
    answer();
    await vi.advanceTimersByTimeAsync(0);
    expect(log.at(-1)).toBe('mark a');
  });

  it('puts jobs of several queues on their own queue each', async () => {
    const { dispatcher, rounds, log } = make({ queues: ['charges', 'refunds'] });
    rounds.push([...due('charges', 'a'), ...due('refunds', 'b'), ...due('charges', 'c')]);
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(10);
    expect(log).toEqual(['take 3', 'put charges a c', 'put refunds b', 'mark a c', 'mark b']);
  });

  it('leaves jobs of a queue that is not served here unmarked', async () => {
    const { dispatcher, rounds, log } = make();
    rounds.push([...due('unserved', 'x'), ...due('charges', 'a')]);
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(10);
    expect(log).toEqual(['take 2', 'put charges a', 'mark a']);
  });

  it('asks only for the queues it serves, for so many rows at most', async () => {
    const { dispatcher, takes } = make({ queues: ['charges', 'refunds'] });
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(10);
    expect(takes).toEqual([{ queues: ['charges', 'refunds'], limit: 500, holdMs: expect.any(Number) }]);
  });

  it('asks for nothing while it serves no queue', async () => {
    const { dispatcher, takes } = make({ queues: [] });
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(5_000);
    expect(takes).toEqual([]);
  });

  it('lets BullMQ carry retries only for sources whose jobs have any', async () => {
    const { dispatcher, rounds, log } = make({ carriesRetries: false });
    rounds.push(due('charges', 'a'));
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(10);
    expect(log[1]).toBe('put charges a without retries');
  });

  it('goes on without a pause as long as batches come back full', async () => {
    const { dispatcher, rounds, takes } = make();
    rounds.push(many(500), many(500), many(3));
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(10);
    expect(takes).toHaveLength(3);
  });

  it('carries what every source has', async () => {
    const carried: string[] = [];
    const sourceOf = (id: string): DispatchSource => {
      const jobs = due('charges', id);
      return {
        carriesRetries: true,
        targetOf: (queue) => queue,
        group,
        take: async () => jobs.splice(0),
        mark: async (marked) => void carried.push(ids(marked.map(({ job }) => job))),
      };
    };
    const port = {
      name: 'charges',
      put: async () => undefined,
      ping: async () => undefined,
    } as unknown as QueuePort;
    const dispatcher = dispatcherOf(
      [sourceOf('operation'), sourceOf('letter')],
      { names: ['charges'], portOf: () => port },
      () => undefined,
    );
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(10);
    expect(carried).toEqual(['operation', 'letter']);
  });
});

describe('Dispatcher: when', () => {
  it('does nothing before it is started', async () => {
    const { dispatcher, takes } = make();
    dispatcher.wake();
    await vi.advanceTimersByTimeAsync(5_000);
    expect(takes).toEqual([]);
    expect(dispatcher.isRunning).toBe(false);
  });

  it('looks at once when it starts, and then as often as it polls', async () => {
    const { dispatcher, takes } = make();
    dispatcher.start();
    expect(dispatcher.isRunning).toBe(true);
    await vi.advanceTimersByTimeAsync(10);
    expect(takes).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(3_000);
    expect(takes).toHaveLength(4);
  });

  it('looks at once when it is woken', async () => {
    const { dispatcher, takes } = make();
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(500);
    dispatcher.wake();
    await vi.advanceTimersByTimeAsync(1);
    expect(takes).toHaveLength(2);
  });

  it('looks once for all that wakes it in one tick', async () => {
    const { dispatcher, takes } = make();
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(500);
    for (let call = 0; call < 50; call += 1) dispatcher.wake();
    await vi.advanceTimersByTimeAsync(100);
    expect(takes).toHaveLength(2);
  });

  it('looks again at once when it was woken while it was at work', async () => {
    const { dispatcher, world, takes } = make();
    world.take = () => new Promise((resolve) => setTimeout(() => resolve([]), 100));
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(50);
    dispatcher.wake();
    await vi.advanceTimersByTimeAsync(100);
    expect(takes).toHaveLength(2);
  });
});

describe('Dispatcher: refusals', () => {
  it('puts each job alone when BullMQ refuses a batch, marks those it takes, and tells of the other', async () => {
    const { dispatcher, world, rounds, log, errors } = make();
    world.put = (jobs) =>
      jobs.some(({ jobId }) => jobId === 'job-2') ? Promise.reject(refusal) : Promise.resolve();
    rounds.push(due('charges', 'job-1', 'job-2', 'job-3'));
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(10);
    expect(log).toEqual([
      'take 3',
      'put charges job-1 job-2 job-3',
      'put charges job-1',
      'put charges job-2',
      'put charges job-3',
      'mark job-1 job-3',
    ]);
    expect(errors).toEqual([['Queue "charges" did not take job job-2; they are tried again later', refusal]]);
  });

  it('marks nothing when BullMQ refuses each job', async () => {
    const { dispatcher, world, rounds, log, errors } = make();
    world.put = () => Promise.reject(refusal);
    rounds.push(due('charges', 'a', 'b'));
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(10);
    expect(log.filter((line) => line.startsWith('mark'))).toEqual([]);
    expect(errors).toHaveLength(2);
  });

  it('marks nothing, and does not try jobs one by one, when the backend is out of reach', async () => {
    const { dispatcher, world, rounds, log, errors } = make();
    const lost = new Error('connect ECONNREFUSED');
    world.put = () => Promise.reject(lost);
    world.ping = () => Promise.reject(lost);
    rounds.push(due('charges', 'a', 'b'));
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(10);
    expect(log).toEqual(['take 2', 'put charges a b']);
    expect(errors).toEqual([['Queue "charges" did not take 2 jobs; they are tried again later', lost]]);
  });

  it('gives up on a put that is not answered before its rows fall due for another instance', async () => {
    const { dispatcher, world, rounds, log, takes, errors } = make();
    const never = (): Promise<void> => new Promise(() => undefined);
    world.put = never;
    world.ping = never;
    rounds.push(due('charges', 'a', 'b'));
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(errors).toEqual([]);
    await vi.advanceTimersByTimeAsync(takes.at(0)!.holdMs - 1_001);
    expect(errors).toEqual([
      [
        'Queue "charges" did not take 2 jobs; they are tried again later',
        expect.objectContaining({ message: expect.stringMatching(/^No answer/) }),
      ],
    ]);
    expect(log).toEqual(['take 2', 'put charges a b']);
  });
});

describe('Dispatcher: jobs that BullMQ does not take', () => {
  const isTaken = (log: readonly string[]) => log.filter((line) => line.startsWith('put')).length;

  it('are tried ever more seldom, down to every ten minutes, and at once like any other after they were taken', async () => {
    const { dispatcher, world, log } = make();
    const startedAt = performance.now();
    let takenAt = -Infinity;
    // As a source does: a row that was not marked is due again when its hold ends.
    world.take = async () => {
      if (performance.now() - takenAt < 10_000) return [];
      takenAt = performance.now();
      return due('charges', 'bad');
    };
    const triedAt: number[] = [];
    world.put = () => {
      triedAt.push(Math.round((performance.now() - startedAt) / 1000));
      return Promise.reject(refusal);
    };
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(triedAt.slice(0, 4)).toEqual([0, 10, 20, 50]);
    expect(triedAt.length).toBeLessThan(15);
    expect(triedAt.length).toBeGreaterThan(9);
    world.put = () => Promise.resolve();
    await vi.advanceTimersByTimeAsync(620_000);
    expect(log).toContain('mark bad');
    const putsBefore = isTaken(log);
    await vi.advanceTimersByTimeAsync(30_000);
    expect(isTaken(log) - putsBefore).toBeGreaterThanOrEqual(2);
  });

  it('are no longer in the way of a batch while they rest', async () => {
    const { dispatcher, world, log } = make();
    world.put = (jobs) =>
      jobs.some(({ jobId }) => jobId === 'bad') ? Promise.reject(refusal) : Promise.resolve();
    let rounds = 0;
    world.take = async () => ((rounds += 1) <= 3 ? due('charges', 'bad', `a${rounds}`, `b${rounds}`) : []);
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(3_500);
    expect(log.slice(-3)).toEqual(['take 3', 'put charges a3 b3', 'mark a3 b3']);
  });

  it('are not looked for one by one when a batch is not answered in time, though the backend answers', async () => {
    const { dispatcher, world, rounds, log, errors } = make();
    world.put = () => new Promise(() => undefined);
    rounds.push(due('charges', 'a', 'b', 'c'));
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(5_400);
    expect(log).toEqual(['take 3', 'put charges a b c']);
    expect(errors).toHaveLength(1);
  });

  it('do not hold up stopping: what has not been put alone by then is left to the next', async () => {
    const { dispatcher, world, rounds, log } = make();
    world.put = (jobs) =>
      jobs.length > 1
        ? Promise.reject(refusal)
        : new Promise((resolve) => setTimeout(() => resolve(), 1_000));
    rounds.push(due('charges', 'a', 'b', 'c'));
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(500);
    const stopping = dispatcher.stop();
    await vi.advanceTimersByTimeAsync(600);
    await stopping;
    expect(log).toEqual(['take 3', 'put charges a b c', 'put charges a', 'mark a']);
  });
});

describe('Dispatcher: failures', () => {
  it('carries the jobs of one queue while another does not answer, and tells only of the other', async () => {
    const { dispatcher, world, rounds, log, errors } = make({ queues: ['charges', 'refunds'] });
    const isDown = (jobs: readonly OutgoingJob[]): boolean => jobs.some(({ jobId }) => jobId === 'a');
    world.put = (jobs) => (isDown(jobs) ? new Promise(() => undefined) : Promise.resolve());
    world.ping = () => new Promise(() => undefined);
    rounds.push([...due('charges', 'a'), ...due('refunds', 'b')]);
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(10);
    expect(log).toEqual(['take 2', 'put charges a', 'put refunds b', 'mark b']);
    expect(errors).toEqual([]);
    await vi.advanceTimersByTimeAsync(8_000);
    expect(errors.map(([message]) => message)).toEqual([
      'Queue "charges" did not take job a; they are tried again later',
    ]);
    expect(log.filter((line) => line.startsWith('mark'))).toEqual(['mark b']);
  });

  it.each([
    ['take', 'Dispatching was interrupted; it goes on by itself'],
    ['mark', 'Jobs of queue "charges" were put, but could not be marked'],
    ['put', 'Queue "charges" did not take job first; they are tried again later'],
  ])('carries what the second source has when the first fails to %s', async (step, told) => {
    const lost = new Error('Connection terminated');
    const carried: string[] = [];
    const errors: [string, unknown][] = [];
    const sourceOf = (id: string, failing: string | undefined): DispatchSource => {
      const jobs = due('charges', id);
      return {
        carriesRetries: true,
        targetOf: (queue) => queue,
        group,
        take: async () => {
          if (failing === 'take') throw lost;
          return jobs.splice(0);
        },
        mark: async (marked) => {
          if (failing === 'mark') throw lost;
          carried.push(ids(marked.map(({ job }) => job)));
        },
      };
    };
    const port = {
      name: 'charges',
      put: async ([job]: readonly OutgoingJob[]) => {
        if (step === 'put' && job?.jobId === 'first') throw lost;
      },
      ping: async () => undefined,
    } as unknown as QueuePort;
    const dispatcher = dispatcherOf(
      [sourceOf('first', step), sourceOf('second', undefined)],
      { names: ['charges'], portOf: () => port },
      (message, error) => errors.push([message, error]),
    );
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(10);
    await dispatcher.stop();
    expect(carried).toEqual(['second']);
    expect(errors).toEqual([[told, lost]]);
  });

  it('leaves a queue alone that took nothing, longer each time up to ten seconds, also when it is woken', async () => {
    const { dispatcher, world, takes } = make();
    world.put = () => Promise.reject(refusal);
    world.ping = () => Promise.reject(refusal);
    world.take = () => Promise.resolve(due('charges', 'a'));
    const takesWithin = async (ms: number): Promise<number> => {
      const before = takes.length;
      for (let waited = 0; waited < ms; waited += 100) {
        dispatcher.wake();
        await vi.advanceTimersByTimeAsync(100);
      }
      return takes.length - before;
    };
    dispatcher.start();
    expect(await takesWithin(400)).toBe(1);
    expect(await takesWithin(200)).toBe(1);
    expect(await takesWithin(800)).toBe(0);
    expect(await takesWithin(200)).toBe(1);
    await takesWithin(60_000);
    expect(await takesWithin(100_000)).toBe(10);
    world.put = () => Promise.resolve();
    world.take = () => Promise.resolve([]);
    await takesWithin(10_000);
    expect(await takesWithin(1_000)).toBeGreaterThan(5);
  });

  it('carries jobs of healthy queues as they come, however long another does not answer', async () => {
    const { dispatcher, world, rounds, log } = make({ queues: ['charges', 'refunds'] });
    const isDown = (jobs: readonly OutgoingJob[]): boolean => jobs.some(({ jobId }) => jobId === 'a');
    world.put = (jobs) => (isDown(jobs) ? new Promise(() => undefined) : Promise.resolve());
    let pings = 0;
    world.ping = () => {
      pings += 1;
      return new Promise(() => undefined);
    };
    world.take = async (names) => [
      ...(names.includes('charges') ? due('charges', 'a') : []),
      ...(rounds.shift() ?? []),
    ];
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(10);
    for (let second = 1; second <= 60; second += 1) {
      rounds.push(due('refunds', `b${second}`));
      dispatcher.wake();
      await vi.advanceTimersByTimeAsync(1);
      expect(log.at(-1)).toBe(`mark b${second}`);
      await vi.advanceTimersByTimeAsync(999);
    }
    // It is asked whether it is there, and is given nothing more to keep until it is.
    expect(log.filter((line) => line === 'put charges a')).toHaveLength(1);
    expect(pings).toBeGreaterThan(3);
  });

  it('keeps no job of a queue waiting for a single one that its backend cannot take', async () => {
    const { dispatcher, world, rounds, log } = make();
    world.put = (jobs) =>
      jobs.some(({ jobId }) => jobId === 'bad') ? Promise.reject(refusal) : Promise.resolve();
    rounds.push(due('charges', 'bad'));
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(10);
    rounds.push(due('charges', 'good'));
    dispatcher.wake();
    await vi.advanceTimersByTimeAsync(10);
    expect(log.at(-1)).toBe('mark good');
  });

  it('tries no further jobs one by one once the backend has gone', async () => {
    const { dispatcher, world, rounds, log } = make();
    world.put = () => Promise.reject(refusal);
    let pings = 0;
    world.ping = () => (++pings === 1 ? Promise.resolve() : Promise.reject(refusal));
    rounds.push(due('charges', 'a', 'b', 'c'));
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(10);
    expect(log).toEqual(['take 3', 'put charges a b c', 'put charges a']);
  });

  it('looks less and less often while it fails, and as often as before when it works again', async () => {
    const { dispatcher, world, takes, errors } = make();
    const lost = new Error('Connection terminated');
    world.take = () => Promise.reject(lost);
    const looks = async (ms: number): Promise<number> => {
      const before = takes.length;
      await vi.advanceTimersByTimeAsync(ms);
      return takes.length - before;
    };
    dispatcher.start();
    expect(await looks(100)).toBe(1);
    expect(await looks(500)).toBe(1);
    expect(await looks(900)).toBe(0);
    expect(await looks(100)).toBe(1);
    expect(await looks(1_900)).toBe(0);
    expect(await looks(100)).toBe(1);
    expect(errors).toHaveLength(4);
    // However long it lasts, the pauses end at ten seconds.
    await looks(600_000);
    expect(await looks(100_000)).toBe(10);
    world.take = () => Promise.resolve([]);
    await looks(10_100);
    expect(await looks(5_000)).toBe(5);
  });

  it('does not go on at once after a failure because it was woken meanwhile', async () => {
    const { dispatcher, world, takes } = make();
    world.take = () => new Promise((_resolve, reject) => setTimeout(() => reject(new Error('lost')), 100));
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(50);
    dispatcher.wake();
    await vi.advanceTimersByTimeAsync(300);
    expect(takes).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(300);
    expect(takes).toHaveLength(2);
  });
});

describe('Dispatcher: stopping', () => {
  it('finishes the batch under way, marks it, and takes no other', async () => {
    const { dispatcher, world, rounds, log, takes } = make();
    world.put = () => new Promise((resolve) => setTimeout(resolve, 300));
    rounds.push(many(500), many(500));
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(100);
    let isStopped = false;
    const stopping = dispatcher.stop().then(() => (isStopped = true));
    expect(dispatcher.isRunning).toBe(false);
    await vi.advanceTimersByTimeAsync(100);
    expect(isStopped).toBe(false);
    await vi.advanceTimersByTimeAsync(200);
    await stopping;
    expect(log.map((line) => line.split(' ')[0])).toEqual(['take', 'put', 'mark']);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(takes).toHaveLength(1);
  });

  it('leaves no timer behind, and wakes no more', async () => {
    const { dispatcher, takes } = make();
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(10);
    await dispatcher.stop();
    expect(vi.getTimerCount()).toBe(0);
    dispatcher.wake();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(takes).toHaveLength(1);
  });

  it('can start again', async () => {
    const { dispatcher, takes } = make();
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(10);
    await dispatcher.stop();
    dispatcher.start();
    await vi.advanceTimersByTimeAsync(10);
    expect(takes).toHaveLength(2);
  });
});
