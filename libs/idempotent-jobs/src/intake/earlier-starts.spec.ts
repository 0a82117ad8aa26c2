import type { Job } from 'bullmq';
import { describe, expect, it } from 'vitest';
import { EarlierStarts } from './earlier-starts.js';

/** A job with a log, which one delivery after the other adds to. */
function jobWith(
  counters: Partial<Pick<Job, 'attemptsStarted' | 'attemptsMade' | 'stalledCounter' | 'stacktrace'>>,
) {
  const log: string[] = [];
  const job = {
    attemptsStarted: 1,
    attemptsMade: 0,
    stalledCounter: 0,
    stacktrace: [],
    log: (line: string) => Promise.resolve(log.unshift(line)),
    ...counters,
  };
  return { job, log, starts: new EarlierStarts(job as unknown as Job, () => Promise.resolve(log)) };
}

describe('EarlierStarts', () => {
  it('there are none of a fresh job', async () => {
    const { starts } = jobWith({});
    expect(starts.areThere).toBe(false);
    expect(await starts.wereUnclaimed()).toBe(true);
  });

  it.each([
    { attemptsStarted: 2 },
    { attemptsMade: 1 },
    { stalledCounter: 1 },
    { stacktrace: ['Error: no answer'] },
  ])('there are some of a job with %o, and nobody knows what they did', async (counters) => {
    const { starts } = jobWith(counters);
    expect(starts.areThere).toBe(true);
    expect(await starts.wereUnclaimed()).toBe(false);
  });

  it('knows those that were put off here, one after the other', async () => {
    const { job, log, starts } = jobWith({});
    for (let start = 1; start <= 3; start += 1) {
      job.attemptsStarted = start;
      expect(await starts.wereUnclaimed()).toBe(true);
      await starts.noteUnclaimed();
    }
    expect(log).toHaveLength(3);
  });

  it('misses one of somebody else in between, and vouches for none after it', async () => {
    const { job, log, starts } = jobWith({});
    await starts.noteUnclaimed();
    job.attemptsStarted = 3;
    expect(await starts.wereUnclaimed()).toBe(false);
    await starts.noteUnclaimed();
    job.attemptsStarted = 4;
    expect(await starts.wereUnclaimed()).toBe(false);
    expect(log).toHaveLength(1);
  });
});
