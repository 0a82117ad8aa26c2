import { expect, it } from 'vitest';
import { describeFlush } from './flush.js';

it('describeFlush says when Redis was flushed and what went with it', () => {
  expect(describeFlush({ second: 4, jobs: 180 })).toBe(
    'Redis was flushed after 4.0 s, with 180 jobs on its queues',
  );
});
