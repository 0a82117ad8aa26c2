import { describe, expect, it } from 'vitest';
import { type JobEvent, JobEvents } from './job-events.js';

const event: JobEvent = { kind: 'replayed', queue: 'charges', jobName: 'charge', jobId: 'op-1' };

describe('JobEvents', () => {
  it('tells every subscriber, at once and in the order they came', () => {
    const events = new JobEvents();
    const heard: [string, JobEvent][] = [];
    events.subscribe((one) => heard.push(['first', one]));
    events.subscribe((one) => heard.push(['second', one]));
    events.emit(event);
    expect(heard).toEqual([
      ['first', event],
      ['second', event],
    ]);
  });

  it('tells the others, and not the job, when a subscriber throws', () => {
    const events = new JobEvents();
    const heard: JobEvent[] = [];
    events.subscribe(() => {
      throw new Error('the metrics are broken');
    });
    events.subscribe((one) => heard.push(one));
    expect(() => events.emit(event)).not.toThrow();
    events.emit(event);
    expect(heard).toHaveLength(2);
  });

  it('tells a subscriber nothing after it has unsubscribed, also twice', () => {
    const events = new JobEvents();
    const heard: JobEvent[] = [];
    const unsubscribe = events.subscribe((one) => heard.push(one));
    events.emit(event);
    unsubscribe();
    unsubscribe();
    events.emit(event);
    expect(heard).toHaveLength(1);
  });

  it('lets a subscriber unsubscribe while it is told', () => {
    const events = new JobEvents();
    const heard: string[] = [];
    const unsubscribe = events.subscribe(() => {
      heard.push('once');
      unsubscribe();
    });
    events.subscribe(() => heard.push('always'));
    events.emit(event);
    events.emit(event);
    expect(heard).toEqual(['once', 'always', 'always']);
  });

  it('is observed as long as it has a subscriber', () => {
    const events = new JobEvents();
    expect(events.isObserved).toBe(false);
    const unsubscribe = events.subscribe(() => undefined);
    expect(events.isObserved).toBe(true);
    unsubscribe();
    expect(events.isObserved).toBe(false);
  });

  it('tells nothing to the subscribers of another instance', () => {
    const [one, other] = [new JobEvents(), new JobEvents()];
    const heard: JobEvent[] = [];
    one.subscribe((told) => heard.push(told));
    other.emit(event);
    expect(heard).toEqual([]);
  });
});
