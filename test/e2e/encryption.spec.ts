import { randomBytes, randomUUID } from 'node:crypto';
import { type INestApplicationContext, Injectable, type Type } from '@nestjs/common';
import { FlowProducer, type Job } from 'bullmq';
import {
  type EncryptionOptions,
  type IdempotentJobsOptions,
  OutcomeService,
  PermanentError,
} from 'nestjs-idempotent-jobs';
import { type DeadLetterMessage, DeadLetterService, OnDeadLetter } from 'nestjs-idempotent-jobs/dead-letters';
import {
  ConfigurationError,
  InvalidPayloadError,
  RecordUnreadableError,
} from 'nestjs-idempotent-jobs/errors';
import { type JobEvent, JobEvents } from 'nestjs-idempotent-jobs/observe';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { cliIn, jsonOf } from '../support/cli.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, deliver, enqueue, idempotentQueue, outcomeOf, settled } from '../support/ledger.js';
import type { Place } from '../support/place.js';
import { type Handler, identifyPlain, processorOf, Scripts } from '../support/processors.js';
import { BACKENDS, dataSourceOf, makePlace } from '../support/scenario.js';
import { startApp } from '../support/start-app.js';
import { storedText } from '../support/stored-text.js';

const PAYLOAD_SECRET = 'payload-4242';
const RESULT_SECRET = 'result-1717';
const BY_ADA = { actor: 'ada', note: 'the account is back' };
const QUICK = { attempts: 1 };

const old = randomBytes(32);
const young = randomBytes(32).toString('base64');
const OLD_ONLY: EncryptionOptions = { keys: { old }, current: 'old' };
const YOUNG_ONLY: EncryptionOptions = { keys: { young }, current: 'young' };
const ROTATED: EncryptionOptions = { keys: { old, young }, current: 'young' };

const jobsWith = (encryption: EncryptionOptions | undefined): IdempotentJobsOptions => ({
  ...(encryption && { encryption }),
  dispatch: { pollMs: 100 },
});

const chargesThat = (act: Handler): Type =>
  processorOf('charges', { effect: 'keyed', retry: QUICK, identify: identifyPlain }, act);

const secretly = (): unknown => ({ receipt: RESULT_SECRET });
const wonder = (): never => {
  throw new Error('who knows');
};
const fail = (): never => {
  throw new PermanentError('no such account');
};

describe.each(BACKENDS)('encryption, on %s', (backend) => {
  const apps = useApps();
  /** Everything that can put a payload or a result somewhere. */
  const everything = async (encryption: EncryptionOptions | undefined) => {
    const seen: unknown[] = [];
    const told: DeadLetterMessage[] = [];
    @Injectable()
    class Alerts {
      @OnDeadLetter('charges')
      page(letter: DeadLetterMessage): void {
        told.push(letter);
      }
    }
    const late: { app?: INestApplicationContext } = {};
    const charges = chargesThat((job, operation) => {
      seen.push(job.data);
      if (operation.operationKey === 'charge:dies') fail();
      if (operation.operationKey === 'charge:1')
        operation.enqueue(
          idempotentQueue(late.app as INestApplicationContext, 'charges'),
          'charge',
          { card: PAYLOAD_SECRET },
          { operationKey: 'charge:follow-up' },
        );
      return secretly();
    });
    const { app, place } = await apps.fresh(backend, {
      queues: ['charges', 'quiet'],
      providers: [charges, processorOf('quiet', { effect: 'keyed', retry: QUICK }, fail), Alerts],
      jobs: jobsWith(encryption),
    });
    late.app = app;
    const queue = idempotentQueue(app, 'charges');
    const payload = { card: PAYLOAD_SECRET };
    const asAcme = (operationKey: string) => ({ operationKey, tenantId: 'acme' });
    await queue.enqueue('charge', payload, { ...asAcme('charge:later'), delayMs: 600_000 });
    await queue.enqueue('charge', payload, { ...asAcme('charge:queue'), durability: 'queue' });
    await queue.schedule('charge', payload, { ...asAcme('charge:every'), every: 400 });
    await enqueue(app, 'charges', 'charge', payload, 'charge:1');
    await enqueue(app, 'charges', 'charge', payload, 'charge:dies');
    await enqueue(app, 'quiet', 'charge', payload, 'quiet:dies');
    const producer = new FlowProducer({ connection: place.connection, prefix: place.prefix });
    await producer.add(queue.flowJob('charge', payload, asAcme('charge:node')));
    await producer.close();
    for (const key of ['charge:1', 'charge:follow-up', 'charge:dies', 'charge:queue', 'charge:node'])
      await eventually(
        () => outcomeOf(app, key),
        (outcome) => expect(outcome?.status).toMatch(/completed|dead/),
      );
    await eventually(
      () => [told.length, seen.length] as const,
      ([letters, runs]) => {
        expect(letters).toBe(1);
        expect(runs).toBeGreaterThanOrEqual(6);
      },
    );
    await eventually(
      () => bullQueue(app, 'quiet-dlq').getJobCountByTypes('waiting'),
      (count) => expect(count).toBe(1),
    );
    await queue.unschedule(asAcme('charge:every'));
    return { app, place, seen, told, payload };
  };

  it('nothing of a payload or a result is stored anywhere in plain text; handlers and people read it', async () => {
    const { app, place, seen, told, payload } = await everything(OLD_ONLY);
    expect(seen.every((data) => (data as { card: string }).card === PAYLOAD_SECRET)).toBe(true);
    expect(told).toMatchObject([{ operationKey: 'charge:dies', payload }]);
    expect(await outcomeOf(app, 'charge:1')).toMatchObject({ result: { receipt: RESULT_SECRET } });
    const letter = { tenantId: 'acme', operationKey: 'charge:dies' };
    expect(await app.get(DeadLetterService).get(letter)).toMatchObject({ payload });

    const stored = await storedText(app, place);
    expect(stored).toContain('charge:follow-up');
    expect(stored).toContain('$encrypted');
    expect(stored).not.toContain(PAYLOAD_SECRET);
    expect(stored).not.toContain(RESULT_SECRET);
  });

  it('without it, both are: what looks for them would have found them', async () => {
    const { app, place } = await everything(undefined);
    const stored = await storedText(app, place);
    expect(stored.split(PAYLOAD_SECRET).length - 1).toBeGreaterThanOrEqual(6);
    expect(stored.split(RESULT_SECRET).length - 1).toBeGreaterThanOrEqual(4);
    expect(stored).not.toContain('$encrypted');
  });

  it('a letter is redriven with its payload, also under the next key', async () => {
    const { app, place } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [chargesThat(fail)],
      jobs: jobsWith(OLD_ONLY),
    });
    await enqueue(app, 'charges', 'charge', { card: PAYLOAD_SECRET }, 'charge:1');
    const iteration = { operationKey: 'charge:every', tenantId: 'acme' };
    await idempotentQueue(app, 'charges').schedule(
      'charge',
      { card: 'of a schedule' },
      {
        ...iteration,
        every: 3_600_000,
      },
    );
    const { letters } = await eventually(
      () => app.get(DeadLetterService).list(),
      (page) => expect(page.letters).toHaveLength(2),
    );
    await apps.close(app);

    const seen: unknown[] = [];
    const heir = await apps.beside(place, {
      queues: ['charges'],
      providers: [chargesThat((job) => seen.push((job.data as { card: string }).card))],
      jobs: jobsWith(ROTATED),
    });
    for (const { id } of letters) await heir.get(DeadLetterService).redrive(id, BY_ADA);
    await eventually(
      () => new Set(seen),
      (cards) => expect(cards).toEqual(new Set(['of a schedule', PAYLOAD_SECRET])),
    );
    expect(await settled(heir, 'charge:1')).toMatchObject({ status: 'completed' });
  });

  it('keys are rotated: all of them read, the current one writes', async () => {
    const providers = [chargesThat(secretly)];
    const { app, place } = await apps.fresh(backend, {
      queues: ['charges'],
      providers,
      jobs: jobsWith(OLD_ONLY),
    });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await settled(app, 'charge:1');
    await apps.close(app);
    const heir = await apps.beside(place, { queues: ['charges'], providers, jobs: jobsWith(ROTATED) });
    await enqueue(heir, 'charges', 'charge', {}, 'charge:2');
    await settled(heir, 'charge:2');
    for (const key of ['charge:1', 'charge:2'])
      expect(await outcomeOf(heir, key)).toMatchObject({ result: { receipt: RESULT_SECRET } });
    const rows = await dataSourceOf(heir).query<unknown[]>(
      `SELECT result->>'key' AS key FROM job_outcomes ORDER BY operation_key`,
    );
    expect(rows).toEqual([{ key: 'old' }, { key: 'young' }]);
  });

  it('what was written in plain text before is read as it is', async () => {
    const { app, place } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [chargesThat((_job, { operationKey }) => (operationKey === 'charge:1' ? 'plain' : fail()))],
      jobs: jobsWith(undefined),
    });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await enqueue(app, 'charges', 'charge', { card: '1' }, 'charge:2');
    await settled(app, 'charge:2');
    await settled(app, 'charge:1');
    await apps.close(app);
    const heir = await apps.beside(place, {
      queues: ['charges'],
      providers: [chargesThat((job) => job.data)],
      jobs: jobsWith(OLD_ONLY),
    });
    expect(await outcomeOf(heir, 'charge:1')).toMatchObject({ result: 'plain' });
    const letter = { tenantId: 'acme', operationKey: 'charge:2' };
    expect(await heir.get(DeadLetterService).get(letter)).toMatchObject({ payload: { card: '1' } });
    await heir.get(DeadLetterService).redrive(letter, BY_ADA);
    expect(await settled(heir, 'charge:2')).toMatchObject({ status: 'completed', result: { card: '1' } });
  });

  it('boot refuses keys that are none, without quoting them', async () => {
    const boot = apps.fresh(backend, {
      queues: ['charges'],
      jobs: jobsWith({ keys: { old: 'too-short' }, current: 'other' }),
    });
    await expect(boot).rejects.toThrow(ConfigurationError);
    await expect(boot).rejects.toThrow(/key "old" has 6 bytes.*encryption\.current is "other"/);
    await expect(boot).rejects.not.toThrow(/too-short/);
  });
});

/** What they lack of the key that others have written with. Each has its name for a tenant. */
const PROCESSES: readonly (readonly [string, EncryptionOptions | undefined, RegExp])[] = [
  ['without its key', YOUNG_ONLY, /^record_unreadable: .*key "old", which is not configured/],
  ['without encryption', undefined, /^record_unreadable: .*key "old", and no keys are configured/],
  [
    'with other bytes under its id',
    { keys: { old: young }, current: 'old' },
    /^record_unreadable: .*key "old", but does not authenticate/,
  ],
];

describe.each(BACKENDS)('encryption, on %s', (backend) => {
  const apps = useApps();
  const eventsOf = (app: INestApplicationContext): JobEvent[] => {
    const events: JobEvent[] = [];
    app.get(JobEvents).subscribe((event) => events.push(event));
    return events;
  };
  const deferredAs = (events: readonly JobEvent[], tenantId: string | undefined, what: RegExp) =>
    eventually(
      () =>
        events.flatMap((event) =>
          event.kind === 'deferred' && event.tenantId === tenantId ? [event.detail] : [],
        ),
      (reasons) => expect(reasons).toContainEqual(expect.stringMatching(what)),
    );

  /** The tenants whose operations were run. */
  const runs: string[] = [];
  const written = chargesThat((_job, { tenantId, operationKey }) => {
    runs.push(tenantId);
    return operationKey === 'charge:dies' ? fail() : secretly();
  });

  // One place for all of the processes. One that has the key has completed operations for each of
  // them there, and another one without workers can ask for more.
  let place: Place;
  let app: INestApplicationContext;
  beforeAll(async () => {
    place = await makePlace(backend);
    const writer = await startApp(place, {
      queues: ['charges'],
      providers: [written],
      jobs: jobsWith(OLD_ONLY),
    });
    for (const [tenantId] of PROCESSES) {
      await deliver(writer, 'charges', 'charge:1', {}, tenantId);
      await deliver(writer, 'charges', 'charge:dies', {}, tenantId);
      await enqueue(writer, 'charges', 'charge', {}, 'charge:asked', tenantId);
      for (const key of ['charge:1', 'charge:dies', 'charge:asked'])
        await eventually(
          () => outcomeOf(writer, key, tenantId),
          (outcome) => expect(outcome?.settledAt).toBeDefined(),
        );
    }
    await writer.close();
    app = await startApp(place, { queues: ['charges'], jobs: jobsWith(OLD_ONLY) });
  });
  afterAll(() => app.close());

  describe.each(PROCESSES)('in a process %s', (tenantId, wrong, reason) => {
    it('a job is put off and not run; once the key is there, it completes', async () => {
      const other = `tenant-${randomUUID()}`;
      await enqueue(app, 'charges', 'charge', { card: PAYLOAD_SECRET }, 'charge:1', other);
      const seen: unknown[] = [];
      const charges = chargesThat((job) => seen.push(job.data));
      const blind = await apps.beside(place, {
        queues: ['charges'],
        providers: [charges],
        jobs: jobsWith(wrong),
      });
      const events = eventsOf(blind);
      // Whose job it is nobody can tell yet; of the jobs that other cases have left it is known.
      await deferredAs(events, undefined, reason);
      expect(seen).toEqual([]);
      expect(await outcomeOf(app, 'charge:1', other)).toMatchObject({ status: 'pending', attempts: 0 });
      expect((await app.get(DeadLetterService).list({ tenantId: other })).letters).toEqual([]);
      expect(JSON.stringify(events)).not.toContain(PAYLOAD_SECRET);
      await apps.close(blind);

      const heir = await apps.beside(place, {
        queues: ['charges'],
        providers: [charges],
        jobs: jobsWith(OLD_ONLY),
      });
      expect(await settled(heir, 'charge:1', other)).toMatchObject({ status: 'completed', attempts: 1 });
      expect(seen).toEqual([{ card: PAYLOAD_SECRET }]);
    });

    it('a completed operation is neither run again nor answered, and reading it throws', async () => {
      const blind = await apps.beside(place, {
        queues: ['charges'],
        providers: [written],
        jobs: jobsWith(wrong),
      });
      const events = eventsOf(blind);
      const job = await deliver(blind, 'charges', 'charge:1', {}, tenantId);
      await deferredAs(events, tenantId, reason);
      expect(runs.filter((tenant) => tenant === tenantId)).toHaveLength(3);
      expect(await job.isFailed()).toBe(false);

      const operation = { tenantId, operationKey: 'charge:1' };
      await expect(blind.get(OutcomeService).get(operation)).rejects.toThrow(RecordUnreadableError);
      await expect(enqueue(blind, 'charges', 'charge', {}, 'charge:asked', tenantId)).rejects.toMatchObject({
        code: 'RECORD_UNREADABLE',
        data: { keyId: 'old', operationKey: 'charge:asked', kind: 'result' },
      });
      const letters = blind.get(DeadLetterService);
      const [letter] = (await letters.list({ tenantId })).letters;
      expect(letter).toMatchObject({ operationKey: 'charge:dies' });
      await expect(letters.get(letter!.id)).rejects.toThrow(RecordUnreadableError);
      // Needs no key.
      expect(await letters.discard(letter!.id, BY_ADA)).toMatchObject({ outcome: 'discarded' });
    });
  });
});

describe.each(BACKENDS)('encryption, on %s', (backend) => {
  const apps = useApps();

  // One application for all cases that need one process with one key: each has a tenant of its own.
  const scripts = new Scripts();
  let place: Place;
  let app: INestApplicationContext;
  beforeAll(async () => {
    place = await makePlace(backend);
    app = await startApp(place, {
      queues: ['charges', 'unrepeatable', 'anonymous'],
      providers: [
        chargesThat(scripts.handler),
        processorOf('unrepeatable', { retry: QUICK }, scripts.handler),
        processorOf('anonymous', { effect: 'keyed' }, secretly),
      ],
      jobs: { ...jobsWith(OLD_ONLY), deadLetters: { editedRedrive: true } },
    });
  });
  afterAll(() => app.close());

  it('a replay is answered with the result, to producers and to deliveries, but not to BullMQ', async () => {
    let runs = 0;
    const tenantId = scripts.tenantWith(() => ({ receipt: RESULT_SECRET, run: (runs += 1) }));
    const deliverIt = () => deliver(app, 'charges', 'charge:1', {}, tenantId);
    const jobs = [await deliverIt(), await deliverIt()];
    for (const job of jobs) {
      await eventually(
        () => job.isCompleted(),
        (isCompleted) => expect(isCompleted).toBe(true),
      );
      const kept = await bullQueue(app, 'charges').getJob(job.id as string);
      expect((kept as Job).returnvalue ?? undefined).toBeUndefined();
    }
    expect(await outcomeOf(app, 'charge:1', tenantId)).toMatchObject({
      result: { receipt: RESULT_SECRET, run: 1 },
    });

    const produce = () => enqueue(app, 'charges', 'charge', {}, 'charge:2', tenantId);
    await produce();
    await settled(app, 'charge:2', tenantId);
    expect(await produce()).toMatchObject({ duplicate: true, result: { receipt: RESULT_SECRET, run: 2 } });
    expect(runs).toBe(2);
  });

  it('a letter is given another identity, with its own payload', async () => {
    const seen: unknown[] = [];
    const wrong = scripts.tenantWith(fail);
    const right = scripts.tenantWith((job) => seen.push(job.data));
    await enqueue(app, 'charges', 'charge', { card: PAYLOAD_SECRET }, 'charge:wrong', wrong);
    await settled(app, 'charge:wrong', wrong);
    await app
      .get(DeadLetterService)
      .redriveEdited(
        { tenantId: wrong, operationKey: 'charge:wrong' },
        { tenantId: right, operationKey: 'charge:right' },
        BY_ADA,
      );
    await settled(app, 'charge:right', right);
    expect(seen).toEqual([{ card: PAYLOAD_SECRET }]);
  });

  it('a payload that was moved to another operation is not read', async () => {
    const tenantId = scripts.tenantWith(fail);
    for (const key of ['charge:1', 'charge:2']) {
      await enqueue(app, 'charges', 'charge', { key }, key, tenantId);
      await settled(app, key, tenantId);
    }
    await dataSourceOf(app).query(
      `UPDATE dead_letters SET payload =
         (SELECT payload FROM dead_letters WHERE tenant_id = $1 AND operation_key = 'charge:1')
       WHERE tenant_id = $1`,
      [tenantId],
    );
    const letters = app.get(DeadLetterService);
    const ref = (operationKey: string) => ({ tenantId, operationKey });
    expect(await letters.get(ref('charge:1'))).toMatchObject({ payload: { key: 'charge:1' } });
    await expect(letters.get(ref('charge:2'))).rejects.toMatchObject({ reason: 'damaged' });
  });

  it.each([
    ['with keys', OLD_ONLY],
    ['without', undefined],
  ])('refuses a payload that calls itself encrypted, %s', async (_title, encryption) => {
    const asked =
      encryption === OLD_ONLY
        ? app
        : (await apps.fresh(backend, { queues: ['charges'], jobs: jobsWith(encryption) })).app;
    const look = { $encrypted: 1, key: 'old', iv: '', data: '' };
    await expect(enqueue(asked, 'charges', 'charge', look, 'charge:1')).rejects.toThrow(InvalidPayloadError);
  });

  it('a job that nobody can identify is kept encrypted, too, and read by its letter', async () => {
    const job = await bullQueue(app, 'anonymous').add(
      'charge',
      { card: PAYLOAD_SECRET },
      { removeOnFail: true },
    );
    const [letter] = await eventually(
      async () => (await app.get(DeadLetterService).list({ queue: 'anonymous' })).letters,
      (letters) => expect(letters).toMatchObject([{ jobId: job.id, reason: 'identity_missing' }]),
    );
    expect(await app.get(DeadLetterService).get(letter!.id)).toMatchObject({
      payload: { card: PAYLOAD_SECRET },
    });
    await eventually(
      () => storedText(app, place),
      (stored) => expect(stored).not.toContain(PAYLOAD_SECRET),
    );
  });

  it('the command line shows what is encrypted as such, and writes no result beside it', async () => {
    const tenantId = scripts.tenantWith(wonder);
    await enqueue(app, 'unrepeatable', 'charge', { card: PAYLOAD_SECRET }, 'charge:1', tenantId);
    await settled(app, 'charge:1', tenantId);
    const id = (await app.get(DeadLetterService).list({ tenantId })).letters[0]!.id;
    const shown = await cliIn(place, 'letters', id, '--payload', '--json');
    expect(jsonOf(shown)).toMatchObject({ payload: '(encrypted with key old)' });
    const by = ['--actor', 'ada', '--note', 'asked the bank', '--applied'];
    const refused = await cliIn(place, 'resolve', id, ...by, '--result', `"${RESULT_SECRET}"`);
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toMatch(/is encrypted, and no keys are configured here/);
    expect(await outcomeOf(app, 'charge:1', tenantId)).toMatchObject({ status: 'in_doubt' });
    expect(await cliIn(place, 'resolve', id, ...by)).toMatchObject({ code: 0 });
    expect(await outcomeOf(app, 'charge:1', tenantId)).toMatchObject({
      status: 'completed',
      result: undefined,
    });
  });

  it('a result that a person gives is kept encrypted', async () => {
    const tenantId = scripts.tenantWith(wonder);
    await enqueue(app, 'unrepeatable', 'charge', {}, 'charge:1', tenantId);
    await settled(app, 'charge:1', tenantId);
    const letter = { tenantId, operationKey: 'charge:1' };
    const resolve = (result: unknown) =>
      app.get(DeadLetterService).resolve(letter, { kind: 'applied', result }, BY_ADA);
    await expect(resolve({ $encrypted: 1 })).rejects.toThrow(InvalidPayloadError);
    await resolve({ receipt: RESULT_SECRET });
    expect(await outcomeOf(app, 'charge:1', tenantId)).toMatchObject({ result: { receipt: RESULT_SECRET } });
    expect(await storedText(app, place)).not.toContain(RESULT_SECRET);
  });
});
