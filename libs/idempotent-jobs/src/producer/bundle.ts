import { hash } from 'node:crypto';
import type { Job } from 'bullmq';
import type { OutgoingJob } from '../bullmq/queue-port.js';
import { type Envelope, isEnvelope } from './envelope.js';

/*
 * The ledger owns what must happen, and BullMQ only delivers. So one BullMQ job may carry many operations: a bundle. Each
 * operation keeps its own claim, lease, attempt, outcome, letter and trace; only the delivery is shared.
 */

/** A backlog is worked off by several workers, each with several handlers at once: what is put at one time makes ten bundles. */
const BUNDLES_PER_PUT = 10;

/**
 * The most operations of a bundle that is made, and of one that is read. At one time the dispatcher puts at most 500 operations
 * (`BATCH_SIZE`), of which it makes bundles of 50, and a producer that adds its jobs itself at most 1000 (`MAX_ROWS`).
 *
 * Raise what is read one release before what is made: a worker refuses a larger bundle as one job that names no operation, and
 * its operations wait until they are put again.
 */
export const MAX_BUNDLE = 100;

/** Redis and BullMQ copy a job's data several times; a bundle of large payloads would be larger than any single job. */
const MAX_CHARACTERS = 256 * 1024;

/** What an operation has in its job besides the payload, at most, unless its key is very long. */
const ENVELOPE_CHARACTERS = 1000;

/** In UTF-8, at most. */
const BYTES_PER_CHARACTER = 3;

/** How operations of a queue are bundled: `registerQueue({ bundle })`. */
export interface BundleRules {
  /** The most operations of a bundle. */
  readonly max: number;
}

/** What a job of a bundle would be as a job of its own. */
export interface BundledJob {
  readonly id: string;
  readonly name: string;
  readonly data: unknown;
}

/**
 * A bundle's data. To a version of the library that does not know bundles it looks like a job of the first operation whose
 * payload is encrypted with a key that has not arrived there yet. Such a job is left for a worker that can read it.
 */
interface BundleData extends Envelope {
  readonly bundle: readonly BundledJob[];
}

const UNREADABLE = { $encrypted: 'bundle', key: 'bundle' };

/** The job that carries those jobs, which are at least two. */
export function bundleOf(jobs: readonly OutgoingJob[]): OutgoingJob {
  const [first] = jobs as [OutgoingJob];
  const jobId = bundleIdOf(jobs);
  const { operation, signature } = first.data as Envelope;
  const data: BundleData = {
    operation,
    payload: UNREADABLE,
    ...(signature !== undefined && { signature }),
    bundle: jobs.map(({ jobId: id, name, data: own }) => ({ id, name, data: own })),
  };
  const wasPut = jobs.some((job) => job.wasPut === true);
  return { name: first.name, jobId, data, delayMs: 0, priority: first.priority, wasPut };
}

/** Begins with the id of the first job, by which its operation is confirmed. The same jobs make the same bundle. */
export function bundleIdOf(jobs: readonly Pick<OutgoingJob, 'jobId'>[]): string {
  const [first] = jobs as [Pick<OutgoingJob, 'jobId'>];
  const digest = hash('sha256', jobs.map(({ jobId }) => jobId).join(), 'base64url');
  return `${first.jobId}-b${digest.slice(0, 16)}`;
}

/**
 * The jobs that a BullMQ job carries. Undefined if it is no bundle. What is no job in it has no identity that could be
 * confirmed, and is refused like any other such job.
 */
export function readBundle({ id = '', data }: Pick<Job, 'id' | 'data'>): readonly BundledJob[] | undefined {
  if (!isBundle(data)) return undefined;
  if (data.bundle.length > MAX_BUNDLE) return [{ id, name: 'unknown', data: 'a bundle that is too large' }];
  return data.bundle.map((job, index) =>
    isJob(job) ? job : { id: `${id}-${index}`, name: 'unknown', data: job },
  );
}

/** The data of a bundle without some of its jobs. */
export function withoutJobs(data: unknown, ids: readonly string[]): object {
  if (!isBundle(data)) return {};
  const bundle = data.bundle.filter((job) => !ids.includes((job as Partial<BundledJob> | null)?.id ?? ''));
  const first = bundle.find((job) => isJob(job) && isEnvelope(job.data))?.data as Envelope | undefined;
  return first === undefined
    ? {}
    : { ...data, operation: first.operation, signature: first.signature, bundle };
}

function isBundle(data: unknown): data is BundleData {
  if (!isEnvelope(data) || !('bundle' in data) || !Array.isArray(data.bundle)) return false;
  return (data.payload as typeof UNREADABLE | null | undefined)?.$encrypted === UNREADABLE.$encrypted;
}

function isJob(job: unknown): job is BundledJob {
  if (job === null || typeof job !== 'object') return false;
  const { id, name } = job as Partial<BundledJob>;
  return typeof id === 'string' && typeof name === 'string';
}

/** What decides how an operation is bundled. */
export interface Bundling {
  readonly delayMs: number | undefined;
  readonly priority: number | undefined;
  /** JSON text. */
  readonly payload: string;
}

/**
 * Groups jobs that are put on their queue at one time, and chooses the size of their bundles: a tenth of what is put, so that
 * a backlog is shared among workers, and at most what the rules allow. A bundle has jobs that are due now, of one priority.
 * Everything else goes by itself.
 */
export function grouped<J extends Bundling>(
  jobs: readonly J[],
  rules: BundleRules | undefined,
  maxDataBytes = Infinity,
): J[][] {
  const most = Math.min(MAX_CHARACTERS, maxDataBytes / BYTES_PER_CHARACTER);
  const size = Math.min(rules?.max ?? 1, Math.floor(jobs.length / BUNDLES_PER_PUT));
  if (size < 2) return jobs.map((job) => [job]);
  const groups: J[][] = [];
  const open = new Map<number | undefined, { group: J[]; characters: number }>();
  for (const job of jobs) {
    const { delayMs = 0, priority } = job;
    const characters = job.payload.length + ENVELOPE_CHARACTERS;
    const filling = open.get(priority);
    if (delayMs > 0) groups.push([job]);
    else if (
      filling !== undefined &&
      filling.group.length < size &&
      filling.characters + characters <= most
    ) {
      filling.group.push(job);
      filling.characters += characters;
    } else {
      const group = [job];
      groups.push(group);
      open.set(priority, { group, characters });
    }
  }
  return groups;
}
