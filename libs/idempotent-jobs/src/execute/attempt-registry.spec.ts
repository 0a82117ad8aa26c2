import { describe, expect, it } from 'vitest';
import { Attempt } from './attempt.js';
import { AttemptRegistry } from './attempt-registry.js';

function attempt(): Attempt {
  return new Attempt(() => undefined);
}

function whyOver(one: Attempt): unknown {
  return one.isOver ? (one.signal.reason as Error).message : undefined;
}

describe('AttemptRegistry', () => {
  it('counts the handlers that run', () => {
    const registry = new AttemptRegistry();
    const leaves = [registry.add(attempt()), registry.add(attempt())];
    expect(registry.size).toBe(2);
    leaves.at(0)!();
    expect(registry.size).toBe(1);
    leaves.at(0)!();
    expect(registry.size).toBe(1);
    leaves.at(1)!();
    expect(registry.size).toBe(0);
  });

  it('leaves alone a run that has left', () => {
    const registry = new AttemptRegistry();
    const gone = attempt();
    registry.add(gone)();
    registry.abandonAll('shutdown');
    expect(gone.isOver).toBe(false);
  });

  it('abandons all runs, with the reason', () => {
    const registry = new AttemptRegistry();
    const runs = [attempt(), attempt(), attempt()];
    runs.forEach((run) => registry.add(run));
    registry.abandonAll('shutdown');
    expect(runs.every((run) => run.isOver)).toBe(true);
    expect(whyOver(runs.at(2)!)).toMatch(/shutting down/);
  });

  it('lets a run leave while it is being abandoned', () => {
    const registry = new AttemptRegistry();
    const [first, second] = [attempt(), attempt()];
    const leave = registry.add(first);
    registry.add(second);
    first.signal.addEventListener('abort', leave);
    registry.abandonAll('shutdown');
    expect(second.isOver).toBe(true);
    expect(registry.size).toBe(1);
  });
});
