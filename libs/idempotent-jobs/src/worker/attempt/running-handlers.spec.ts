import { describe, expect, it } from 'vitest';
import { HandlerRun } from './handler-run.js';
import { RunningHandlers } from './running-handlers.js';

function attempt(): HandlerRun {
  return new HandlerRun(() => undefined);
}

function whyOver(one: HandlerRun): unknown {
  return one.isOver ? (one.signal.reason as Error).message : undefined;
}

describe('RunningHandlers', () => {
  it('counts the handlers that run', () => {
    const running = new RunningHandlers();
    const [one, other] = [attempt(), attempt()];
    running.add(one);
    running.add(other);
    expect(running.size).toBe(2);
    running.remove(one);
    running.remove(one);
    expect(running.size).toBe(1);
    running.remove(other);
    expect(running.size).toBe(0);
  });

  it('leaves alone a run that has left', () => {
    const running = new RunningHandlers();
    const gone = attempt();
    running.add(gone);
    running.remove(gone);
    running.abandonAll('shutdown');
    expect(gone.isOver).toBe(false);
  });

  it('cancels the runs of one job, or of one queue, and says whether there were any', () => {
    const running = new RunningHandlers();
    const [one, two, elsewhere, call] = [attempt(), attempt(), attempt(), attempt()];
    running.add(one, { queueName: 'charges', id: '1' });
    running.add(two, { queueName: 'charges', id: '2' });
    running.add(elsewhere, { queueName: 'mails', id: '1' });
    running.add(call);
    const cancelled = (): boolean[] =>
      [one, two, elsewhere, call].map((run) => run.abandonedBy === 'cancelled');
    expect(running.cancel('charges', '3')).toBe(false);
    expect(running.cancel('charges', '1')).toBe(true);
    expect(cancelled()).toEqual([true, false, false, false]);
    expect(running.cancel('charges')).toBe(true);
    expect(cancelled()).toEqual([true, true, false, false]);
  });

  it('abandons all runs, with the reason', () => {
    const running = new RunningHandlers();
    const runs = [attempt(), attempt(), attempt()];
    runs.forEach((run) => running.add(run));
    running.abandonAll('shutdown');
    expect(runs.every((run) => run.isOver)).toBe(true);
    expect(whyOver(runs.at(2)!)).toMatch(/shutting down/);
  });

  it('lets a run leave while it is being abandoned', () => {
    const running = new RunningHandlers();
    const [first, second] = [attempt(), attempt()];
    running.add(first);
    running.add(second);
    first.signal.addEventListener('abort', () => running.remove(first));
    running.abandonAll('shutdown');
    expect(second.isOver).toBe(true);
    expect(running.size).toBe(1);
  });
});
