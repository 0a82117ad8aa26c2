import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { InDoubtError } from '../../operation/failure.js';
import { HandlerRun, type HandlerResult } from './handler-run.js';
import type { AbandonedBy } from '../../operation/reasons.js';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

function watched(): { attempt: HandlerRun; late: string[] } {
  const late: string[] = [];
  return { attempt: new HandlerRun((how) => late.push(how)), late };
}

/** Lets promises settle. */
async function settled(): Promise<void> {
  await vi.advanceTimersByTimeAsync(0);
}

function abandoned(execution: HandlerResult): Extract<HandlerResult, { kind: 'abandoned' }> {
  if (execution.kind !== 'abandoned') throw new Error(`The handler ${execution.kind}`);
  return execution;
}

describe('HandlerRun: what it is a part of ends', () => {
  it('is cancelled with it, also where that was before anybody listened', async () => {
    const [before, later] = [new AbortController(), new AbortController()];
    before.abort();
    const [late, early] = [watched().attempt, watched().attempt];
    late.endWith(before.signal);
    early.endWith(later.signal);
    expect([late.abandonedBy, early.abandonedBy]).toEqual(['cancelled', undefined]);
    later.abort();
    expect(early.abandonedBy).toBe('cancelled');
  });

  it('stops listening when it is told so', () => {
    const controller = new AbortController();
    const { attempt } = watched();
    attempt.endWith(controller.signal)();
    controller.abort();
    expect(attempt.isOver).toBe(false);
    expect(attempt.endWith(undefined)).not.toThrow();
  });
});

describe('HandlerRun: the handler ends first', () => {
  it('returns the handler’s value', async () => {
    const { attempt, late } = watched();
    expect(await attempt.run(async () => ({ id: 7 }), 1_000)).toEqual({ kind: 'returned', value: { id: 7 } });
    expect(attempt.isOver).toBe(true);
    expect(late).toEqual([]);
  });

  it('takes a handler that forgets its promise for one that returned', async () => {
    const { attempt } = watched();
    const careless = (() => 'plain') as unknown as () => Promise<unknown>;
    expect(await attempt.run(careless, 1_000)).toEqual({ kind: 'returned', value: 'plain' });
  });

  it.each([
    ['an error', new Error('declined')],
    ['a text', 'declined'],
    ['nothing', undefined],
  ])('tells what a handler rejects with: %s', async (_what, error) => {
    const { attempt } = watched();
    expect(await attempt.run(() => Promise.reject(error), 1_000)).toEqual({ kind: 'threw', error });
  });

  it('tells what a handler throws before its first await', async () => {
    const { attempt } = watched();
    const error = new Error('at once');
    const execution = await attempt.run(() => {
      throw error;
    }, 1_000);
    expect(execution).toEqual({ kind: 'threw', error });
  });

  it('is running until then', async () => {
    const { attempt } = watched();
    const running = attempt.run(async () => {
      await new Promise((resolve) => setTimeout(resolve, 500));
      return 'done';
    }, 1_000);
    await vi.advanceTimersByTimeAsync(499);
    expect(attempt.isOver).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect(await running).toEqual({ kind: 'returned', value: 'done' });
  });

  it('cannot be abandoned any more', async () => {
    const { attempt, late } = watched();
    const { signal } = attempt;
    await attempt.run(async () => 'done', 1_000);
    attempt.abandon('shutdown');
    expect(signal.aborted).toBe(false);
    expect(attempt.signal.aborted).toBe(false);
    expect(late).toEqual([]);
  });
});

describe('HandlerRun: it is abandoned first', () => {
  it('ends with a timeout when the handler takes too long, and says how long it may take', async () => {
    const { attempt } = watched();
    const running = attempt.run(() => new Promise(() => undefined), 1_500.4);
    await vi.advanceTimersByTimeAsync(1_499);
    expect(attempt.isOver).toBe(false);
    await vi.advanceTimersByTimeAsync(2);
    const { by: why, error } = abandoned(await running);
    expect(why).toBe('timeout');
    expect(error).toBeInstanceOf(InDoubtError);
    expect(error.message).toBe('The attempt was abandoned: it took longer than its 1500 ms.');
  });

  it.each<[AbandonedBy, string]>([
    ['timeout', 'it took too long'],
    ['lease_lost', 'its lease went to another worker or could not be renewed'],
    ['cancelled', 'its job was cancelled'],
    ['shutdown', 'the application is shutting down'],
  ])('ends at once when it is abandoned for %s', async (why, explanation) => {
    const { attempt } = watched();
    const running = attempt.run(() => new Promise(() => undefined), 1_000);
    await settled();
    attempt.abandon(why);
    const execution = abandoned(await running);
    expect(execution.by).toBe(why);
    expect(execution.error.message).toBe(`The attempt was abandoned: ${explanation}.`);
  });

  it('keeps the first reason', async () => {
    const { attempt } = watched();
    const running = attempt.run(() => new Promise(() => undefined), 1_000);
    attempt.abandon('lease_lost');
    attempt.abandon('shutdown');
    expect(abandoned(await running).by).toBe('lease_lost');
    expect((attempt.signal.reason as Error).message).toMatch(/lease/);
  });

  it('never calls the handler when it was abandoned before', async () => {
    const { attempt, late } = watched();
    attempt.abandon('cancelled');
    const handler = vi.fn(async () => 'done');
    expect(abandoned(await attempt.run(handler, 1_000)).by).toBe('cancelled');
    expect(handler).not.toHaveBeenCalled();
    expect(late).toEqual([]);
  });

  it('ends abandoned when the handler itself leads to that and then returns', async () => {
    const { attempt, late } = watched();
    const execution = await attempt.run(async () => attempt.abandon('cancelled'), 1_000);
    expect(abandoned(execution).by).toBe('cancelled');
    await settled();
    expect(late).toEqual(['returned']);
  });

  it.each(['returned', 'threw'] as const)(
    'tells once, and drops, what a handler that is late %s',
    async (how) => {
      const { attempt, late } = watched();
      const running = attempt.run(async () => {
        await new Promise((resolve) => setTimeout(resolve, 5_000));
        if (how === 'threw') throw new Error('late');
        return 'late';
      }, 1_000);
      await vi.advanceTimersByTimeAsync(1_000);
      expect(abandoned(await running).by).toBe('timeout');
      expect(late).toEqual([]);
      await vi.advanceTimersByTimeAsync(10_000);
      expect(late).toEqual([how]);
    },
  );
});

describe('HandlerRun: whether the handler was called', () => {
  it('is so from when it is run, and stays so', async () => {
    const { attempt } = watched();
    expect(attempt.wasStarted).toBe(false);
    const running = attempt.run(async () => 'done', 1_000);
    expect(attempt.wasStarted).toBe(true);
    await running;
    expect(attempt.wasStarted).toBe(true);
  });

  it('is not so of one that was abandoned before', async () => {
    const { attempt } = watched();
    attempt.abandon('cancelled');
    await attempt.run(async () => 'done', 1_000);
    expect(attempt.wasStarted).toBe(false);
  });
});

describe('HandlerRun: its signal', () => {
  it('aborts with the error that the attempt ends with', async () => {
    const { attempt } = watched();
    const { signal } = attempt;
    expect(signal.aborted).toBe(false);
    const running = attempt.run(() => new Promise(() => undefined), 1_000);
    attempt.abandon('shutdown');
    expect(signal.reason).toBe(abandoned(await running).error);
  });

  it('is aborted already when it is first asked for after the attempt was abandoned', async () => {
    const { attempt } = watched();
    const running = attempt.run(() => new Promise(() => undefined), 1_000);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(attempt.signal.aborted).toBe(true);
    expect(attempt.signal.reason).toBe(abandoned(await running).error);
  });

  it('is one and the same, however often it is asked for', () => {
    const { attempt } = watched();
    expect(attempt.signal).toBe(attempt.signal);
  });

  it('reaches a handler that listens to it, which may still end in time for nobody', async () => {
    const { attempt, late } = watched();
    const running = attempt.run(
      () => new Promise((resolve) => attempt.signal.addEventListener('abort', () => resolve('stopped'))),
      1_000,
    );
    await vi.advanceTimersByTimeAsync(1_000);
    expect(abandoned(await running).by).toBe('timeout');
    expect(late).toEqual(['returned']);
  });
});
