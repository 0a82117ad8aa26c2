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
    const leaves = [registry.add('charges', '1', attempt()), registry.add('charges', '1', attempt())];
    expect(registry.size).toBe(2);
    leaves.at(0)!();
    expect(registry.size).toBe(1);
    leaves.at(0)!();
    expect(registry.size).toBe(1);
    leaves.at(1)!();
    expect(registry.size).toBe(0);
  });

  it('abandons every run of a job, and no run of another job or queue', () => {
    const registry = new AttemptRegistry();
    const [first, second, otherJob, otherQueue] = [attempt(), attempt(), attempt(), attempt()];
    registry.add('charges', '1', first);
    registry.add('charges', '1', second);
    registry.add('charges', '11', otherJob);
    registry.add('refunds', '1', otherQueue);
    registry.abandonJob('charges', '1', 'lock_lost');
    expect([first, second, otherJob, otherQueue].map((one) => one.isOver)).toEqual([
      true,
      true,
      false,
      false,
    ]);
    expect(whyOver(first)).toMatch(/BullMQ lock/);
  });

  it('keeps queue and job apart where their names run together', () => {
    const registry = new AttemptRegistry();
    const other = attempt();
    registry.add('charges', 'eu:1', other);
    registry.abandonJob('charges', '1', 'lock_lost');
    registry.abandonJob('charges:e', 'u:1', 'lock_lost');
    expect(other.isOver).toBe(false);
  });

  it('leaves alone a run that has left', () => {
    const registry = new AttemptRegistry();
    const gone = attempt();
    registry.add('charges', '1', gone)();
    registry.abandonJob('charges', '1', 'lock_lost');
    registry.abandonAll('shutdown');
    expect(gone.isOver).toBe(false);
  });

  it('abandons all runs of all queues, with the reason', () => {
    const registry = new AttemptRegistry();
    const runs = [attempt(), attempt(), attempt()];
    runs.forEach((run, index) => registry.add(`queue-${index}`, '1', run));
    registry.abandonAll('shutdown');
    expect(runs.every((run) => run.isOver)).toBe(true);
    expect(whyOver(runs.at(2)!)).toMatch(/shutting down/);
  });

  it('lets a run leave while it is being abandoned', () => {
    const registry = new AttemptRegistry();
    const [first, second] = [attempt(), attempt()];
    const leave = registry.add('charges', '1', first);
    registry.add('charges', '1', second);
    first.signal.addEventListener('abort', leave);
    registry.abandonAll('shutdown');
    expect(second.isOver).toBe(true);
    expect(registry.size).toBe(1);
  });
});
