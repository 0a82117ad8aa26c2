import { PermanentError, TransientError } from 'nestjs-idempotent-jobs';
import { fencedUpdate } from 'nestjs-idempotent-jobs/calls';
import { DeadLetterService } from 'nestjs-idempotent-jobs/dead-letters';
import { Client } from 'pg';
import { describe, expect, it, vi } from 'vitest';
import { useApps, useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import {
  attemptKindsOf,
  bullQueue,
  deliver,
  enqueue,
  idempotentQueue,
  lettersOf,
  outcomeOf,
  settled,
  shortenLeases,
  stepOf,
} from '../support/ledger.js';
import { useProcesses } from '../support/processes.js';
import { Gate, type Handler, identifyPlain, processorOf, Scripts } from '../support/processors.js';
import { BACKENDS, dataSourceOf, makePlace } from '../support/scenario.js';
import { LONG_LEASE_MS, type WorkerScript } from '../support/script.js';
import { heirOf } from '../support/scripted-worker.js';

const BY = { actor: 'ada', note: 'mended' };

describe.each(BACKENDS)('first attempts without a claim, on %s', (backend) => {
  const apps = useApps();
  const workers = useProcesses();
  const scripts = new Scripts();
  const retry = { attempts: 2, backoff: { baseMs: 1, capMs: 1 } } as const;
  const app = useOneApp(backend, {
    queues: ['charges', 'plain'],
    providers: [
      processorOf('charges', { effect: 'natural', optimistic: true, retry }, scripts.handler),
      processorOf(
        'plain',
        { effect: 'natural', optimistic: true, retry, identify: identifyPlain },
        scripts.handler,
      ),
    ],
  });
  const charge = (tenantId: string, payload: object = {}, key = 'charge:1'): Promise<unknown> =>
    enqueue(app(), 'charges', 'charge', payload, key, tenantId);
  const charged = (tenantId: string) => settled(app(), 'charge:1', tenantId);
  const rowOf = async (tenantId: string): Promise<Record<string, unknown>> => {
    const rows = await dataSourceOf(app()).query<Record<string, unknown>[]>(
      'SELECT *, xmin::text FROM job_outcomes WHERE tenant_id = $1',
      [tenantId],
    );
    expect(rows).toHaveLength(1);
    return rows[0] as Record<string, unknown>;
  };

  it.each(['ledger', 'queue'] as const)(
    'one that succeeds is written once, its job delivered by durability %s',
    async (durability) => {
      const query = vi.spyOn(Client.prototype, 'query');
      const tenant = scripts.tenantWith((_job, { attempt, fencingToken }) => ({ attempt, fencingToken }));
      try {
        await idempotentQueue(app(), 'charges').enqueue(
          'charge',
          {},
          {
            tenantId: tenant,
            operationKey: 'charge:1',
            durability,
          },
        );
        expect(await charged(tenant)).toMatchObject({
          status: 'completed',
          attempts: 1,
          result: { attempt: 1, fencingToken: 0 },
        });
        const asked = query.mock.calls.map(([first]) => first as unknown as { text: string } | string);
        const texts = asked.map((one) => (typeof one === 'string' ? one : one.text));
        expect(texts.filter((text) => text.includes('seen_delivery'))).toEqual([]);
        expect(
          texts.filter((text) => /INSERT INTO .*job_outcomes AS o .*'completed'/s.test(text)),
        ).not.toEqual([]);
      } finally {
        query.mockRestore();
      }
      expect(await rowOf(tenant)).toMatchObject({
        payload: null,
        dispatch_due_at: null,
        lease_expires_at: null,
      });
    },
  );

  it('two deliveries at one time both run, and the first recorded outcome is the answer of both', async () => {
    const [first, second] = [new Gate(), new Gate()];
    let runs = 0;
    const tenant = scripts.tenantWith(async () => {
      const mine = (runs += 1);
      await (mine === 1 ? first : second).pass();
      return mine;
    });
    const jobs = [
      await deliver(app(), 'plain', 'charge:1', {}, tenant),
      await deliver(app(), 'plain', 'charge:1', {}, tenant),
    ];
    await Promise.all([first.arrival, second.arrival]);
    second.open();
    expect(await charged(tenant)).toMatchObject({ status: 'completed', attempts: 1, result: 2 });
    first.open();
    const answers = await eventually(
      () => Promise.all(jobs.map(({ id }) => bullQueue(app(), 'plain').getJob(id as string))),
      (found) => {
        for (const job of found) expect(job?.finishedOn).toBeDefined();
      },
    );
    expect(answers.map((job) => job?.returnvalue as unknown)).toEqual([2, 2]);
    expect(await charged(tenant)).toMatchObject({ attempts: 1, result: 2 });
    expect(await lettersOf(app(), tenant)).toEqual([]);
  });

  it('a delivery of what has completed is answered, and writes nothing', async () => {
    let runs = 0;
    const tenant = scripts.tenantWith(() => (runs += 1));
    await deliver(app(), 'plain', 'charge:1', {}, tenant);
    await charged(tenant);
    const before = await rowOf(tenant);
    const job = await deliver(app(), 'plain', 'charge:1', {}, tenant);
    const answered = await eventually(
      () => bullQueue(app(), 'plain').getJob(job.id as string),
      (found) => expect(found?.finishedOn).toBeDefined(),
    );
    expect(answered?.returnvalue).toBe(1);
    expect(await rowOf(tenant)).toEqual(before);
    expect(runs).toBe(1);
  });

  it('another payload under the same key is refused, also while the first one runs', async () => {
    const gate = new Gate();
    const tenant = scripts.tenantWith(async ({ data }) => {
      if ((data as { cents?: number }).cents === 5) await gate.pass();
      return data;
    });
    await deliver(app(), 'plain', 'charge:1', { cents: 5 }, tenant);
    await gate.arrival;
    await deliver(app(), 'plain', 'charge:1', { cents: 7 }, tenant);
    expect(await charged(tenant)).toMatchObject({ result: { cents: 7 } });
    gate.open();
    await eventually(
      () => lettersOf(app(), tenant),
      (letters) => expect(letters).toMatchObject([{ reason: 'idempotency_conflict', payload: { cents: 5 } }]),
    );
    expect(await charged(tenant)).toMatchObject({ result: { cents: 7 } });
  });

  it('a failure is recorded like any other, and the attempts after it are claimed', async () => {
    const seen: number[][] = [];
    const begun: Date[] = [];
    const tenant = scripts.tenantWith((_job, { attempt, fencingToken, startedAt }) => {
      seen.push([attempt, Math.sign(fencingToken)]);
      begun.push(startedAt);
      if (attempt === 1) throw new TransientError('refused');
      return 'charged';
    });
    await charge(tenant);
    expect(await charged(tenant)).toMatchObject({ status: 'completed', attempts: 2, failures: 1 });
    expect(seen).toEqual([
      [1, 0],
      [2, 1],
    ]);
    const history = await dataSourceOf(app()).query<unknown[]>(
      'SELECT kind, attempt, started_at FROM job_attempts WHERE tenant_id = $1',
      [tenant],
    );
    expect(history).toEqual([{ kind: 'transient', attempt: 1, started_at: begun[0] }]);
  });

  it('an attempt that outlives its deadline has its own failure in the history', async () => {
    const tenant = scripts.tenantWith(
      (_job, _operation, signal) =>
        new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(new Error('late')))),
    );
    await idempotentQueue(app(), 'charges').enqueue(
      'charge',
      {},
      { tenantId: tenant, operationKey: 'charge:1', deadline: new Date(Date.now() + 5_000) },
    );
    expect(await charged(tenant)).toMatchObject({ status: 'dead', attempts: 1 });
    expect(await attemptKindsOf(app(), 'charge:1', tenant)).toEqual(['in_doubt']);
    expect(await lettersOf(app(), tenant)).toMatchObject([{ reason: 'time_budget_exceeded' }]);
  });

  it('one that fails for good has a letter, and is claimed when it is redriven', async () => {
    const tokens: number[] = [];
    let isMended = false;
    const tenant = scripts.tenantWith((_job, { fencingToken }) => {
      tokens.push(Math.sign(fencingToken));
      if (!isMended) throw new PermanentError('no such account');
      return 'charged';
    });
    await charge(tenant);
    expect(await charged(tenant)).toMatchObject({ status: 'dead', attempts: 1 });
    expect(await lettersOf(app(), tenant)).toMatchObject([{ reason: 'permanent_error' }]);
    isMended = true;
    await app().get(DeadLetterService).redrive({ tenantId: tenant, operationKey: 'charge:1' }, BY);
    expect(await charged(tenant)).toMatchObject({ status: 'completed', result: 'charged' });
    expect(tokens).toEqual([0, 1]);
  });

  it('finished steps are not repeated, and what it enqueued exists if and only if it completed', async () => {
    const runs: string[] = [];
    const tenant = scripts.tenantWith(async ({ name }, operation) => {
      if (name === 'mail') return runs.push('mail');
      await operation.step('reserve', () => runs.push('reserve'), { effect: 'natural' });
      operation.enqueue(idempotentQueue(app(), 'charges'), 'mail', {}, { operationKey: 'mail:1' });
      runs.push(`attempt ${operation.attempt}`);
      if (operation.attempt === 1) throw new TransientError('refused');
      return 'charged';
    });
    await charge(tenant);
    await charged(tenant);
    expect(await settled(app(), 'mail:1', tenant)).toMatchObject({ status: 'completed' });
    expect(runs).toEqual(['reserve', 'attempt 1', 'attempt 2', 'mail']);
    expect(await stepOf(app(), 'charge:1', 'reserve', tenant)).toMatchObject({ attempts: 1 });
  });

  it('a success beside an attempt that has a claim is left to that one', async () => {
    const [first, second] = [new Gate(), new Gate()];
    const seen: number[] = [];
    const tenant = scripts.tenantWith(async (_job, { attempt, fencingToken }) => {
      seen.push(fencingToken);
      if (seen.length === 1) await first.pass();
      else if (attempt === 1) throw new TransientError('refused');
      else await second.pass();
      return `attempt ${attempt}`;
    });
    await deliver(app(), 'plain', 'charge:1', {}, tenant);
    await first.arrival;
    await deliver(app(), 'plain', 'charge:1', {}, tenant);
    await second.arrival;
    first.open();
    await eventually(
      () => bullQueue(app(), 'plain').getDelayedCount(),
      (delayed) => expect(delayed).toBe(1),
    );
    expect(await outcomeOf(app(), 'charge:1', tenant)).toMatchObject({ status: 'running', attempts: 2 });
    second.open();
    expect(await charged(tenant)).toMatchObject({ status: 'completed', attempts: 2, result: 'attempt 2' });
  });

  it('what a beaten attempt enqueued does not exist', async () => {
    const gate = new Gate();
    let runs = 0;
    const tenant = scripts.tenantWith(async ({ name }, operation) => {
      if (name === 'mail') return undefined;
      const mine = (runs += 1);
      operation.enqueue(idempotentQueue(app(), 'charges'), 'mail', {}, { operationKey: `mail:${mine}` });
      if (mine === 1) await gate.pass();
      return mine;
    });
    await deliver(app(), 'plain', 'charge:1', {}, tenant);
    await gate.arrival;
    await deliver(app(), 'plain', 'charge:1', {}, tenant);
    expect(await charged(tenant)).toMatchObject({ result: 2 });
    gate.open();
    await settled(app(), 'mail:2', tenant);
    await eventually(
      () => bullQueue(app(), 'plain').getActiveCount(),
      (active) => expect(active).toBe(0),
    );
    expect(await outcomeOf(app(), 'mail:1', tenant)).toBeUndefined();
  });

  it('an outcome whose row another transaction holds is recorded when it lets go, and others meanwhile', async () => {
    const gate = new Gate();
    const held = scripts.tenantWith(() => gate.pass());
    const free = scripts.tenantWith(() => 'charged');
    await charge(held);
    await gate.arrival;
    const runner = dataSourceOf(app()).createQueryRunner();
    try {
      await runner.startTransaction();
      await runner.query('SELECT FROM job_outcomes WHERE tenant_id = $1 FOR UPDATE', [held]);
      gate.open();
      await charge(free);
      expect(await charged(free)).toMatchObject({ status: 'completed' });
      expect(await outcomeOf(app(), 'charge:1', held)).toMatchObject({ status: 'pending' });
    } finally {
      await runner.rollbackTransaction();
      await runner.release();
    }
    expect(await charged(held)).toMatchObject({ status: 'completed', attempts: 1 });
  });

  it('an outcome that comes after its operation was erased is not written', async () => {
    const gate = new Gate();
    const tenant = scripts.tenantWith(() => gate.pass());
    await charge(tenant);
    await gate.arrival;
    await dataSourceOf(app()).query('DELETE FROM job_outcomes WHERE tenant_id = $1', [tenant]);
    gate.open();
    await eventually(
      () => lettersOf(app(), tenant),
      (letters) => expect(letters).toMatchObject([{ reason: 'expired' }]),
    );
    expect(await outcomeOf(app(), 'charge:1', tenant)).toBeUndefined();
  });

  it('has no fence', async () => {
    const tenant = scripts.tenantWith(() =>
      fencedUpdate(dataSourceOf(app()), { table: 'accounts', key: { id: 1 }, set: { balance: 2 } }).catch(
        ({ name, message }: Error) => `${name}: ${message}`,
      ),
    );
    await charge(tenant);
    expect((await charged(tenant)).result).toMatch(/^UsageError: fencedUpdate\(\) needs a claim/);
  });

  it('a bundle of many is done, each with an outcome of its own', async () => {
    const handler: Handler = ({ data }) => data;
    const { app: own } = await apps.fresh(backend, {
      queues: [{ name: 'charges', bundle: { max: 50 } }],
      providers: [processorOf('charges', { effect: 'natural', optimistic: true }, handler)],
    });
    const keys = Array.from({ length: 200 }, (_none, index) => `charge:${index}`);
    await idempotentQueue(own, 'charges').enqueueMany(
      keys.map((operationKey) => ({
        name: 'charge',
        payload: { operationKey },
        operationKey,
        tenantId: 'acme',
      })),
    );
    for (const key of keys)
      expect(await settled(own, key)).toMatchObject({
        status: 'completed',
        attempts: 1,
        result: { operationKey: key },
      });
  });

  describe('whose worker dies', () => {
    const begin = async (script: Partial<WorkerScript>) => {
      const place = await makePlace(backend);
      const worker: WorkerScript = {
        place,
        effect: 'natural',
        optimistic: true,
        act: 'die',
        leaseMs: LONG_LEASE_MS,
        ...script,
      };
      const heir = await heirOf(apps, { ...worker, act: 'refuse', times: 0 });
      return { heir, app: heir.app, worker };
    };

    it('is made again, under a claim', async () => {
      const { heir, app: own, worker } = await begin({});
      await enqueue(own, 'charges', 'charge', {}, 'charge:1');
      expect(await workers.launch(worker).exited).toBe('SIGKILL');
      expect(await outcomeOf(own, 'charge:1')).toMatchObject({ status: 'pending', attempts: 0 });
      heir.takeOver();
      expect(await settled(own, 'charge:1')).toMatchObject({ status: 'completed', attempts: 1 });
    });

    it('again and again is buried as a crash loop', async () => {
      const { heir, app: own, worker } = await begin({});
      await enqueue(own, 'charges', 'charge', {}, 'charge:1');
      for (let death = 1; death <= 3; death += 1) {
        expect(await workers.launch(worker).exited).toBe('SIGKILL');
        await shortenLeases(own);
      }
      heir.takeOver();
      expect(await settled(own, 'charge:1')).toMatchObject({ status: 'dead' });
      expect(await lettersOf(own)).toMatchObject([{ reason: 'crash_loop', operation_key: 'charge:1' }]);
    });
  });
});
