import type { Job } from 'bullmq';
import { describe, expect, it } from 'vitest';
import { EarlierStarts } from './earlier-starts.js';

/** A job with a note, which one delivery after the other replaces. */
function jobWith(
  counters: Partial<Pick<Job, 'attemptsStarted' | 'attemptsMade' | 'stalledCounter' | 'stacktrace'>>,
) {
  const notes: string[] = [];
  const job = {
    id: '7',
    attemptsStarted: 1,
    attemptsMade: 0,
    stalledCounter: 0,
    stacktrace: [],
    ...counters,
  };
  const note = {
    noteOn: async () => notes.at(-1),
    writeNoteOn: async (_jobId: string, text: string) => void notes.push(text),
  };
  return { job, notes, starts: new EarlierStarts(job as unknown as Job, note) };
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
    const { job, notes, starts } = jobWith({});
    for (let start = 1; start <= 3; start += 1) {
      job.attemptsStarted = start;
      expect(await starts.wereUnclaimed()).toBe(true);
      await starts.noteUnclaimed();
    }
    expect(notes).toHaveLength(3);
  });

  it('misses one of somebody else in between, and vouches for none after it', async () => {
    const { job, notes, starts } = jobWith({});
    await starts.noteUnclaimed();
    job.attemptsStarted = 3;
    expect(await starts.wereUnclaimed()).toBe(false);
    await starts.noteUnclaimed();
    job.attemptsStarted = 4;
    expect(await starts.wereUnclaimed()).toBe(false);
    expect(notes).toHaveLength(1);
  });

  it('takes no note of before the counters were reset for one of now', async () => {
    const { job, notes, starts } = jobWith({});
    await starts.noteUnclaimed();
    expect(notes).toHaveLength(1);
    Object.assign(job, { attemptsStarted: 2, attemptsMade: 1 });
    expect(await starts.wereUnclaimed()).toBe(false);
  });
});
