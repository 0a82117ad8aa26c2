import { randomBytes } from 'node:crypto';
import type { INestApplicationContext } from '@nestjs/common';
import { FlowProducer, type Job } from 'bullmq';
import { type IdempotentJobsOptions, PermanentError } from 'nestjs-idempotent-jobs';
import { DeadLetterService } from 'nestjs-idempotent-jobs/dead-letters';
import { ConfigurationError } from 'nestjs-idempotent-jobs/errors';
import { describe, expect, it } from 'vitest';
import { useApps, useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import {
  bullQueue,
  deliver,
  enqueue,
  idempotentQueue,
  type LetterRow,
  lettersOf,
  outcomeOf,
  settled,
} from '../support/ledger.js';
import type { Place } from '../support/place.js';
import { type Handler, identifyPlain, processorOf, Scripts } from '../support/processors.js';
import { ANY_BACKEND, BACKENDS, dataSourceOf, makePlace } from '../support/scenario.js';

const KEYS = { old: randomBytes(32), new: randomBytes(32).toString('base64') };
const SIGNED = { signing: { keys: { old: KEYS.old }, current: 'old' } };
const KEYED = { effect: 'keyed' } as const;
const DAY_MS = 24 * 60 * 60 * 1000;

interface Wire {
  readonly name: string;
  readonly data: {
    operation: Record<string, unknown>;
    payload: unknown;
    signature?: Record<string, unknown>;
  };
  readonly opts: { jobId: string };
}

describe.each(BACKENDS)('signed jobs, on %s', (backend) => {
  const apps = useApps();

  const chargingInto =
    (runs: string[]): Handler =>
    (_job, operation) => {
      runs.push(operation.operationKey);
      if (operation.operationKey === 'charge:dies' && runs.length === 1) throw new PermanentError('no');
      return 'charged';
    };

  async function worker(
    place: Place,
    jobs: IdempotentJobsOptions = SIGNED,
  ): Promise<{ app: INestApplicationContext; runs: string[] }> {
    const runs: string[] = [];
    const app = await apps.beside(place, {
      queues: ['charges', 'refunds'],
      providers: ['charges', 'refunds'].map((queue) => processorOf(queue, KEYED, chargingInto(runs))),
      jobs,
    });
    return { app, runs };
  }

  // One application for all cases that need no other options. Each has a tenant of its own.
  const scripts = new Scripts();
  const shared = useOneApp(backend, {
    queues: ['charges', 'refunds', 'plain'],
    providers: [
      processorOf('charges', KEYED, scripts.handler),
      processorOf('refunds', KEYED, scripts.handler),
      processorOf('plain', { ...KEYED, identify: identifyPlain }, scripts.handler),
    ],
    jobs: SIGNED,
  });
  const newTenant = (): { tenantId: string; runs: string[] } => {
    const runs: string[] = [];
    return { tenantId: scripts.tenantWith(chargingInto(runs)), runs };
  };
  /** The letters of a tenant, and those of a job whose tenant nobody believes. */
  const lettersAbout = (tenantId: string, jobId: string): Promise<LetterRow[]> =>
    dataSourceOf(shared()).query('SELECT * FROM dead_letters WHERE tenant_id = $1 OR job_id = $2', [
      tenantId,
      jobId,
    ]);

  const producer = useOneApp(backend, { queues: ['charges'], jobs: SIGNED });

  /** A job as its producer puts it, taken off the queue again. */
  async function taken(place: Place, jobs: IdempotentJobsOptions, options: object = {}): Promise<Wire> {
    const app = await apps.beside(place, { queues: ['charges'], jobs });
    const wire = await takenFrom(app, options);
    await apps.close(app);
    return wire;
  }

  /** As its producer signs it. */
  const signed = (options: object = {}): Promise<Wire> => takenFrom(producer(), options);

  async function takenFrom(app: INestApplicationContext, options: object): Promise<Wire> {
    await idempotentQueue(app, 'charges').enqueue(
      'charge',
      { amount: 5 },
      { operationKey: 'charge:1', tenantId: 'acme', durability: 'queue', ...options },
    );
    const queue = bullQueue(app, 'charges');
    const [job] = await queue.getJobs();
    const { name, data, id } = job as Job;
    await queue.remove(id as string);
    return { name, data, opts: { jobId: id as string } };
  }

  it('run, whichever way they get to their queue', async () => {
    const place = await makePlace(backend);
    const { app, runs } = await worker(place);
    const queue = idempotentQueue(app, 'charges');
    const asAcme = { tenantId: 'acme' };
    await enqueue(app, 'charges', 'charge', { amount: 5 }, 'charge:ledger');
    await dataSourceOf(app).transaction((transaction) =>
      queue.enqueue('charge', {}, { ...asAcme, operationKey: 'charge:transaction', transaction }),
    );
    await queue.enqueue('charge', {}, { ...asAcme, operationKey: 'charge:queue', durability: 'queue' });
    await queue.enqueue(
      'charge',
      {},
      {
        ...asAcme,
        operationKey: 'charge:delayed',
        durability: 'queue',
        delayMs: 300,
        deadline: new Date(Date.now() + DAY_MS),
      },
    );
    await queue.schedule('charge', {}, { ...asAcme, operationKey: 'charge:scheduled', every: 400 });
    const flows = new FlowProducer({ connection: place.connection, prefix: place.prefix });
    await flows.add({
      ...queue.flowJob('charge', {}, { ...asAcme, operationKey: 'charge:parent' }),
      children: [queue.flowJob('charge', {}, { ...asAcme, operationKey: 'charge:child' })],
    });
    for (const way of ['ledger', 'transaction', 'queue', 'delayed', 'parent', 'child'])
      expect(await settled(app, `charge:${way}`)).toMatchObject({ status: 'completed', attempts: 1 });
    await eventually(
      () => runs.filter((key) => key.startsWith('charge:scheduled')),
      (iterations) => expect(iterations.length).toBeGreaterThan(1),
    );
    await queue.unschedule({ ...asAcme, operationKey: 'charge:scheduled' });
    expect(await lettersOf(app)).toEqual([]);
    await flows.close();
  });

  it('that are brought back run again', async () => {
    const { tenantId } = newTenant();
    await enqueue(shared(), 'charges', 'charge', {}, 'charge:dies', tenantId);
    await settled(shared(), 'charge:dies', tenantId);
    const letter = { tenantId, operationKey: 'charge:dies' };
    await shared().get(DeadLetterService).redrive(letter, { actor: 'ada', note: 'again' });
    expect(await settled(shared(), 'charge:dies', tenantId)).toMatchObject({ status: 'completed' });
  });

  it.each([
    ['nothing was signed', ({ data: { operation, payload } }: Wire) => ({ data: { operation, payload } })],
    ['another payload', ({ data }: Wire) => ({ data: { ...data, payload: { amount: 1_000_000 } } })],
    ['no deadline', ({ data }: Wire) => withOperation(data, { deadlineAt: undefined })],
    ['a later deadline', ({ data }: Wire) => withOperation(data, { deadlineAt: '2099-01-01T00:00:00.000Z' })],
    ['another policy', ({ data }: Wire) => withOperation(data, { retryPolicy: 'patient' })],
    ['another name', () => ({ name: 'refund' })],
    ['another queue', () => ({ queue: 'refunds' })],
    [
      'another key',
      ({ data }: Wire) => ({ data: { ...data, signature: { ...data.signature, key: 'unknown' } } }),
    ],
    [
      'another time',
      ({ data }: Wire) => ({ data: { ...data, signature: { ...data.signature, at: Date.now() + DAY_MS } } }),
    ],
    [
      'half a signature',
      ({ data }: Wire) => ({ data: { ...data, signature: { ...data.signature, mac: 'AAAA' } } }),
    ],
    ['a text for a signature', ({ data }: Wire) => ({ data: { ...data, signature: 'signed' } })],
    [
      'the mark of a schedule',
      ({ data, opts }: Wire) => ({
        ...withOperation(data, { isSchedule: true }),
        opts: { jobId: `repeat:${opts.jobId}:1700000000000` },
      }),
    ],
  ])('with %s are letters, and are not run', async (_title, forge: (wire: Wire) => object) => {
    const { tenantId, runs } = newTenant();
    const wire = await signed({ tenantId, deadline: new Date('2098-01-01T00:00:00.000Z') });
    const forged = { queue: 'charges', ...wire, ...forge(wire) } as Wire & { queue: string };
    await bullQueue(shared(), forged.queue).add(forged.name, forged.data, forged.opts);
    const [letter] = await eventually(
      () => lettersAbout(tenantId, forged.opts.jobId),
      (letters) => expect(letters).toHaveLength(1),
    );
    expect(['tenant_mismatch', 'identity_missing']).toContain(letter?.reason);
    expect(letter).toMatchObject({ tenant_id: null });
    expect(runs).toEqual([]);
    expect(await outcomeOf(shared(), 'charge:1', tenantId)).toBeUndefined();
    // What was not forged runs.
    await bullQueue(shared(), 'charges').add(wire.name, wire.data, { jobId: `${wire.opts.jobId}-2` });
    expect(await settled(shared(), 'charge:1', tenantId)).toMatchObject({ status: 'completed' });
  });

  describe('with a payload that nobody can read', () => {
    const encryption = { keys: { k1: randomBytes(32) }, current: 'k1' };
    const unreadable: [string, object, ReadonlyArray<'signed' | 'encrypted'>][] = [
      ['that says nothing but that it is encrypted', { $encrypted: 1 }, []],
      ['of a key that is not known', { $encrypted: 1, key: 'k2', iv: '', data: '' }, ['encrypted']],
    ];

    it.each(unreadable)('are letters where they are not signed: %s', async (_title, payload, withKeys) => {
      const place = await makePlace(backend);
      const { name, data, opts } = await taken(place, {});
      const { app, runs } = await worker(place, { ...SIGNED, ...(withKeys.length > 0 && { encryption }) });
      await bullQueue(app, 'charges').add(name, { ...data, payload }, opts);
      await eventually(
        () => lettersOf(app),
        (letters) => expect(letters).toMatchObject([{ reason: 'identity_missing' }]),
      );
      expect(runs).toEqual([]);
    });

    it('are letters where the signature is made up', async () => {
      const place = await makePlace(backend);
      const { name, data, opts } = await signed();
      const payload = { $encrypted: 1, key: 'unknown', iv: '', data: '' };
      const signature = { ...data.signature, mac: randomBytes(32).toString('base64url') };
      const { app, runs } = await worker(place, { ...SIGNED, encryption });
      await bullQueue(app, 'charges').add(name, { ...data, payload, signature }, opts);
      await eventually(
        () => lettersOf(app),
        (letters) => expect(letters).toMatchObject([{ reason: 'tenant_mismatch' }]),
      );
      expect(runs).toEqual([]);
    });

    it('are letters where it was damaged', async () => {
      const place = await makePlace(backend);
      const { name, data, opts } = await taken(place, { ...SIGNED, encryption });
      const payload = { ...(data.payload as object), iv: randomBytes(12).toString('base64url') };
      const { app, runs } = await worker(place, { ...SIGNED, encryption });
      await bullQueue(app, 'charges').add(name, { ...data, payload }, opts);
      await eventually(
        () => lettersOf(app),
        (letters) => expect(letters).toMatchObject([{ reason: 'payload_invalid' }]),
      );
      expect(runs).toEqual([]);
    });

    it('wait for the key that they were encrypted with where they are as they were signed', async () => {
      const place = await makePlace(backend);
      const { name, data, opts } = await taken(place, { ...SIGNED, encryption });
      const { app } = await worker(place);
      await bullQueue(app, 'charges').add(name, data, opts);
      await eventually(
        () => bullQueue(app, 'charges').getDelayedCount(),
        (delayed) => expect(delayed).toBe(1),
      );
      expect(await lettersOf(app)).toEqual([]);
      await apps.close(app);
      const { app: heir } = await worker(place, { ...SIGNED, encryption });
      expect(await settled(heir, 'charge:1')).toMatchObject({ status: 'completed' });
    });
  });

  it('are forged by nobody who has another key', async () => {
    const { tenantId, runs } = newTenant();
    const anotherKey = { signing: { keys: { old: randomBytes(32) }, current: 'old' } };
    const wire = await taken(await makePlace(backend), anotherKey, { tenantId });
    await bullQueue(shared(), 'charges').add(wire.name, wire.data, wire.opts);
    await eventually(
      () => lettersAbout(tenantId, wire.opts.jobId),
      (letters) => expect(letters).toMatchObject([{ reason: 'tenant_mismatch' }]),
    );
    expect(runs).toEqual([]);
  });

  it('do not become young again when they are copied', async () => {
    const place = await makePlace(backend);
    const wire = await signed();
    const { app, runs } = await worker(place);
    // As if it had run, and been forgotten.
    await dataSourceOf(app).query(
      `UPDATE job_queues SET forgotten_until = clock_timestamp() + interval '30 minutes'`,
    );
    await bullQueue(app, 'charges').add(wire.name, wire.data, {
      ...wire.opts,
      timestamp: Date.now() + 45 * 60_000,
    });
    await eventually(
      () => lettersOf(app),
      (letters) => expect(letters).toMatchObject([{ reason: 'expired' }]),
    );
    expect(runs).toEqual([]);
  });

  it('outlive the rotation of the key, and nothing else does', async () => {
    const place = await makePlace(backend);
    const wire = await signed();
    const { app, runs } = await worker(place, { signing: { keys: KEYS, current: 'new' } });
    await bullQueue(app, 'charges').add(wire.name, wire.data, wire.opts);
    await enqueue(app, 'charges', 'charge', {}, 'charge:2');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
    expect(await settled(app, 'charge:2')).toMatchObject({ status: 'completed' });
    expect(runs.toSorted()).toEqual(['charge:1', 'charge:2']);
  });

  it('may be joined by unsigned ones until a date', async () => {
    const place = await makePlace(backend);
    const wire = await taken(place, {});
    const signing = { ...SIGNED.signing, acceptUnsignedUntil: new Date(Date.now() + DAY_MS) };
    const { app } = await worker(place, { signing });
    await bullQueue(app, 'charges').add(wire.name, wire.data, wire.opts);
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
  });

  it('may be joined by unsigned ones no longer, once that date is past', async () => {
    const place = await makePlace(backend);
    const wire = await taken(place, {});
    const signing = { ...SIGNED.signing, acceptUnsignedUntil: new Date(Date.now() - 1) };
    const { app, runs } = await worker(place, { signing });
    await bullQueue(app, 'charges').add(wire.name, wire.data, wire.opts);
    await eventually(
      () => lettersOf(app),
      (letters) => expect(letters).toMatchObject([{ reason: 'identity_missing' }]),
    );
    expect(runs).toEqual([]);
  });

  it('leave plain jobs to identify', async () => {
    const { tenantId } = newTenant();
    await deliver(shared(), 'plain', 'charge:1', {}, tenantId);
    expect(await settled(shared(), 'charge:1', tenantId)).toMatchObject({ status: 'completed' });
  });
});

describe('signing keys', () => {
  const apps = useApps();

  it.each([
    [{ keys: {}, current: 'a' }, /signing\.keys must be an object of at least one key/],
    [{ keys: { a: 'short' }, current: 'a' }, /signing\.keys: key "a" has 3 bytes/],
    [{ keys: { a: randomBytes(32) }, current: 'b' }, /signing\.current is "b"/],
    [
      { keys: { a: randomBytes(32) }, current: 'a', acceptUnsignedUntil: 'soon' },
      /signing\.acceptUnsignedUntil/,
    ],
  ])('are refused at boot: %#', async (signing, message) => {
    const starting = apps.fresh(ANY_BACKEND, { queues: ['charges'], jobs: { signing } as never });
    await expect(starting).rejects.toThrow(ConfigurationError);
    await expect(starting).rejects.toThrow(message);
  });
});

function withOperation(data: Wire['data'], change: Record<string, unknown>): { data: unknown } {
  return { data: { ...data, operation: { ...data.operation, ...change } } };
}
