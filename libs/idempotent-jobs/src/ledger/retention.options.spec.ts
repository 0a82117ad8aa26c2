import { describe, expect, it } from 'vitest';
import { DEFAULT_RETENTION, retentionProblems } from './retention.options.js';

const NO_JOBS = { completedMs: undefined, failedMs: undefined };

describe('retentionProblems', () => {
  it('finds nothing wrong with the defaults', () => {
    expect(retentionProblems(DEFAULT_RETENTION, NO_JOBS)).toEqual([]);
  });

  it('allows what ends with the memory of completed operations, and names everything that outlives it', () => {
    const retention = { completedMs: 1000, lettersMs: 1, redriveWindowMs: 1000, dedupeWindowMs: 1000 };
    expect(retentionProblems(retention, { completedMs: 1000, failedMs: 1000 })).toEqual([]);
    expect(
      retentionProblems(
        { ...retention, redriveWindowMs: 1001, dedupeWindowMs: 36_000_000 },
        { completedMs: 1002, failedMs: 1003 },
      ),
    ).toEqual([
      'retention.redriveWindowMs is 1001 ms, longer than retention.completedMs (1000 ms)',
      'retention.dedupeWindowMs is 10 h, longer than retention.completedMs (1000 ms)',
      'removeOnComplete.age is 1002 ms, longer than retention.completedMs (1000 ms)',
      'removeOnFail.age is 1003 ms, longer than retention.completedMs (1000 ms)',
    ]);
  });
});
