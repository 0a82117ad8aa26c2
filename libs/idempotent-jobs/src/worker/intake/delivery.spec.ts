import type { Job } from 'bullmq';
import { describe, expect, it } from 'vitest';
import { UsageError } from '../../operation/errors.js';
import { presentPayload } from './delivery.js';

function job(): Job {
  return {
    data: { operation: {}, payload: { amount: 1 } },
    updateData: async () => undefined,
  } as unknown as Job;
}

describe('presentPayload', () => {
  it('shows the handler the very payload it is given as the job’s data', () => {
    const shown = job();
    const payload = { amount: 5 };
    presentPayload(shown, payload);
    expect(shown.data).toBe(payload);
  });

  it('shows a payload that is nothing', () => {
    const shown = job();
    presentPayload(shown, undefined);
    expect(shown.data).toBeUndefined();
  });

  it('refuses to update the data from then on, and says what to use instead', async () => {
    const shown = job();
    presentPayload(shown, { amount: 5 });
    await expect(shown.updateData({ amount: 6 })).rejects.toThrow(UsageError);
    await expect(shown.updateData({ amount: 6 })).rejects.toThrow(/updateProgress/);
    expect(shown.data).toEqual({ amount: 5 });
  });

  it('touches no other job', async () => {
    const other = job();
    presentPayload(job(), {});
    await expect(other.updateData({})).resolves.toBeUndefined();
  });
});
