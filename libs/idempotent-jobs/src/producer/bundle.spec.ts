import { createSecretKey } from 'node:crypto';
import type { Job } from 'bullmq';
import { describe, expect, it } from 'vitest';
import type { OutgoingJob } from '../bullmq/queue-port.js';
import { Encryption } from '../ledger/encryption/encryption.js';
import { RecordUnreadableError } from '../operation/errors.js';
import { canonicalRequest, fingerprintOf } from '../operation/json.js';
import { jobIdOf } from '../operation/identity.js';
import { JobIdentifier } from '../worker/identify/identify.js';
import { bundleOf, grouped, readBundle, withoutJobs } from './bundle.js';
import { provenanceOf } from './envelope.js';
import { outgoingJob } from './outgoing.js';
import { Signer } from './signer.js';

const operationOf = (n: number) => {
  const identity = { tenantId: `tenant-${n % 3}`, operationKey: `hook:${n}` };
  return {
    ...identity,
    queue: 'hooks',
    jobName: 'hook',
    jobId: `${jobIdOf(identity)}-life`,
    fingerprint: fingerprintOf(canonicalRequest(identity, 'hook', { n })),
    payload: JSON.stringify({ n }),
    priority: undefined as number | undefined,
    delayMs: undefined as number | undefined,
    deadline: undefined,
    trace: undefined,
    retryPolicy: undefined,
  };
};
const operations = (count: number) => Array.from({ length: count }, (_, n) => operationOf(n));
const unsigned = new Signer({ signing: undefined });
const jobsOf = (count: number, signer = unsigned): OutgoingJob[] =>
  operations(count).map((operation) => outgoingJob(operation, { signer, rowMs: 1 }));
const received = ({ jobId, name, data }: OutgoingJob): Job =>
  ({
    id: jobId,
    name,
    data: JSON.parse(JSON.stringify(data)),
    queueName: 'hooks',
    opts: {},
    timestamp: 1,
  }) as unknown as Job;
const sizes = (groups: readonly unknown[][]): number[] => groups.map((group) => group.length);

describe('grouped', () => {
  it.each([
    [1, 50, [1]],
    [19, 50, Array(19).fill(1)],
    [20, 50, Array(10).fill(2)],
    [100, 50, Array(10).fill(10)],
    [100, 4, Array(25).fill(4)],
    [1003, 50, [...Array(20).fill(50), 3]],
    [0, 50, []],
  ])('%s that are put at one time, of at most %s each', (count, max, expected) => {
    expect(sizes(grouped(operations(count), { max }))).toEqual(expected);
  });

  it('leaves each by itself where the queue has no bundles', () => {
    expect(sizes(grouped(operations(100), undefined))).toEqual(Array(100).fill(1));
  });

  it('keeps priorities apart, and what is not due yet by itself', () => {
    const mixed = operations(40).map((operation, n) => ({
      ...operation,
      priority: n % 4 === 1 ? 5 : undefined,
      delayMs: n % 4 === 2 ? 1000 : undefined,
    }));
    const groups = grouped(mixed, { max: 50 });
    expect(groups.flat()).toHaveLength(40);
    for (const group of groups) {
      expect(new Set(group.map(({ priority }) => priority)).size).toBe(1);
      if (group.some(({ delayMs }) => delayMs !== undefined)) expect(group).toHaveLength(1);
    }
    expect(Math.max(...sizes(groups))).toBe(4);
  });

  it('lets no bundle of large payloads grow beyond what one job should have', () => {
    const large = operations(100).map((operation) => ({ ...operation, payload: 'x'.repeat(100_000) }));
    expect(Math.max(...sizes(grouped(large, { max: 50 })))).toBe(2);
    const huge = operations(100).map((operation) => ({ ...operation, payload: 'x'.repeat(1_000_000) }));
    expect(sizes(grouped(huge, { max: 50 }))).toEqual(Array(100).fill(1));
  });
});

describe('a bundle', () => {
  it('gives back what was put into it, each job as it would have been alone', () => {
    const jobs = jobsOf(5);
    const carried = readBundle(received(bundleOf(jobs)));
    expect(carried).toEqual(jobs.map(({ jobId, name, data }) => ({ id: jobId, name, data })));
    expect(carried?.map((job) => provenanceOf(job).kind)).toEqual(Array(5).fill('ours'));
  });

  it('of the same jobs has the same id, and of others another', () => {
    const id = (jobs: OutgoingJob[]): string => bundleOf(jobs).jobId;
    expect(id(jobsOf(5))).toBe(id(jobsOf(5)));
    expect(id(jobsOf(5))).not.toBe(id(jobsOf(4)));
    expect(id(jobsOf(5))).not.toContain(':');
  });

  it.each<[string, unknown]>([
    ['no object', null],
    ['a plain job', { n: 1 }],
    ['a plain job with a list of that name', { bundle: [{ id: 'a', name: 'b', data: {} }] }],
    ['an operation', jobsOf(1)[0]?.data],
    ['an operation with a list of that name', { ...(jobsOf(1)[0]?.data as object), bundle: [] }],
  ])('is none: %s', (_what, data) => {
    expect(readBundle({ id: 'x', data })).toBeUndefined();
  });

  it('that somebody has made up gives jobs that no identity confirms', () => {
    const bundle = bundleOf(jobsOf(2));
    const data = { ...(bundle.data as object), bundle: [null, 1, 'text', {}, { id: 1, name: 'a' }, []] };
    const carried = readBundle({ id: bundle.jobId, data }) ?? [];
    expect(carried).toHaveLength(6);
    expect(carried.map((job) => provenanceOf(job).kind)).toEqual(Array(6).fill('plain'));
    expect(carried.every(({ id, name }) => typeof id === 'string' && typeof name === 'string')).toBe(true);
  });

  describe('in the hands of a version that knows none', () => {
    const ring = { keys: new Map([['k1', createSecretKey(Buffer.alloc(32, 1))]]), current: 'k1' };
    const signed = new Signer({ signing: { ring, acceptUnsignedUntil: -Infinity } });
    it.each([
      ['is a job that cannot be read yet', undefined, unsigned],
      ['so it is where payloads are encrypted', ring, unsigned],
      ['so it is where jobs are signed', undefined, signed],
      ['so it is where both is done', ring, signed],
    ])('%s', (_how, encryption, signer) => {
      const identifier = new JobIdentifier(new Encryption({ encryption }), signer);
      const job = received(bundleOf(jobsOf(3, signer)));
      expect(() => identifier.identify(job, provenanceOf(job), undefined)).toThrow(RecordUnreadableError);
    });
  });
});

describe('a bundle without some of its jobs', () => {
  it('is one of the others, also where it holds what is no job', () => {
    const jobs = jobsOf(3);
    const { data } = bundleOf(jobs) as { data: { bundle: object[] } };
    const odd = { ...data, bundle: [null, 7, ...data.bundle] };
    const [first = '', ...others] = jobs.map(({ jobId }) => jobId);
    expect(withoutJobs(odd, [first])).toMatchObject({
      operation: { operationKey: 'hook:1' },
      bundle: [null, 7, ...others.map((id) => ({ id }))],
    });
    expect(
      withoutJobs(
        odd,
        jobs.map(({ jobId }) => jobId),
      ),
    ).toEqual({});
  });
});
