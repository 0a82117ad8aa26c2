import { describe, expect, it } from 'vitest';
import { HandlerRun, RunningHandlers } from './handler-run.js';

function attempt(): HandlerRun {
  return new HandlerRun(() => undefined);
}

function whyOver(one: HandlerRun): unknown {
  return one.isOver ? (one.signal.reason as Error).message : undefined;
}

describe('RunningHandlers', () => {
  it('counts the handlers that run', () => {
    const running = new RunningHandlers();
    const leaves = [running.add(attempt()), running.add(attempt())];
    expect(running.size).toBe(2);
    leaves.at(0)!();
    expect(running.size).toBe(1);
    leaves.at(0)!();
    expect(running.size).toBe(1);
    leaves.at(1)!();
    expect(running.size).toBe(0);
  });

  it('leaves alone a run that has left', () => {
    const running = new RunningHandlers();
    const gone = attempt();
    running.add(gone)();
    running.abandonAll('shutdown');
    expect(gone.isOver).toBe(false);
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
    const leave = running.add(first);
    running.add(second);
    first.signal.addEventListener('abort', leave);
    running.abandonAll('shutdown');
    expect(second.isOver).toBe(true);
    expect(running.size).toBe(1);
  });
});
