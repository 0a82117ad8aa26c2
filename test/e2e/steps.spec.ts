import {
  currentOperation,
  InDoubtError,
  OutcomeService,
  PermanentError,
  Reconciliation,
  TransientError,
} from 'nestjs-idempotent-jobs';
import { IdempotencyService } from 'nestjs-idempotent-jobs/calls';
import { DeadLetterService } from 'nestjs-idempotent-jobs/dead-letters';
import { InvalidIdentityError } from 'nestjs-idempotent-jobs/errors';
import { RetentionService } from 'nestjs-idempotent-jobs/operate';
import { describe, expect, it } from 'vitest';
import { useApps, useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { enqueue, idempotentQueue, lettersOf, outcomeOf, settled, stepOf } from '../support/ledger.js';
import { type Handler, processorOf, Scripts } from '../support/processors.js';
import { BACKENDS, dataSourceOf } from '../support/scenario.js';

const RETRY = { attempts: 4, backoff: { baseMs: 20, capMs: 50 } };
const BY = { actor: 'ada', note: 'looked' };
const order = (handler: Handler) => processorOf('orders', { effect: 'natural', retry: RETRY }, handler);

describe.each(BACKENDS)('steps of a handler, on %s', (backend) => {
  const apps = useApps();
  const scripts = new Scripts();
  const app = useOneApp(backend, {
    queues: ['orders', 'unrepeatable'],
    providers: [order(scripts.handler), processorOf('unrepeatable', {}, scripts.handler)],
  });
  /** Orders something for a tenant whose operations are handled so, and answers with the tenant. */
  const begin = async (handler: Handler, queue = 'orders'): Promise<string> => {
    const tenant = scripts.tenantWith(handler);
    await enqueue(app(), queue, 'order', { cents: 5 }, 'order:1', tenant);
    return tenant;
  };

  it('resume after the last finished one: its result is replayed, and each ran once', async () => {
    const runs: string[] = [];
    const tenant = await begin(async (_job, { step, attempt }) => {
      const charge = await step('charge', () => {
        runs.push('charge');
        return { chargeId: 'ch_1' };
      });
      const receipt = await step('receipt', () => runs.push('receipt') && charge.chargeId.length);
      if (attempt === 1) throw new TransientError('after both');
      return { charge, receipt };
    });
    expect(await settled(app(), 'order:1', tenant)).toMatchObject({
      status: 'completed',
      attempts: 2,
      result: { charge: { chargeId: 'ch_1' }, receipt: 4 },
    });
    expect(runs).toEqual(['charge', 'receipt']);
    expect(await stepOf(app(), 'order:1', 'charge', tenant)).toMatchObject({
      status: 'completed',
      attempts: 1,
    });
  });

  it('have a key, a token and a signal of their own, the same on every try', async () => {
    const seen: object[] = [];
    const tenant = await begin(async (_job, parent) => {
      await parent.step(
        'charge',
        (operation) => {
          const { operationKey, tenantId, attempt, idempotencyKey } = currentOperation();
          seen.push({ operationKey, tenantId, attempt, isOwnKey: idempotencyKey !== parent.idempotencyKey });
          expect(operation.idempotencyKey).toBe(idempotencyKey);
          if (attempt === 1) throw new TransientError('refused');
        },
        { effect: 'keyed' },
      );
      expect(currentOperation().operationKey).toBe('order:1');
    });
    expect(await settled(app(), 'order:1', tenant)).toMatchObject({ status: 'completed', attempts: 2 });
    const step = { operationKey: 'order:1/charge', tenantId: tenant, isOwnKey: true };
    expect(seen).toEqual([
      { ...step, attempt: 1 },
      { ...step, attempt: 2 },
    ]);
  });

  it('run side by side, and hold steps of their own', async () => {
    const runs: string[] = [];
    const tenant = await begin(async (_job, { step, attempt }) => {
      const [one, two] = await Promise.all([
        step('one', () => runs.push('one') && currentOperation().operationKey, { effect: 'natural' }),
        step(
          'two',
          ({ step: inner }) => inner('inner', () => runs.push('inner') && currentOperation().operationKey),
          { effect: 'natural' },
        ),
      ]);
      if (attempt === 1) throw new TransientError('again');
      return [one, two];
    });
    expect(await settled(app(), 'order:1', tenant)).toMatchObject({
      status: 'completed',
      result: ['order:1/one', 'order:1/two/inner'],
    });
    expect(runs.toSorted()).toEqual(['inner', 'one']);
  });

  it('many side by side, with calls among them, warn of no leak of listeners', async () => {
    const warnings: string[] = [];
    const listen = (warning: Error): number => warnings.push(`${warning.name}: ${warning.message}`);
    process.on('warning', listen);
    try {
      // In an application of its own, since Node warns only once of each signal that has too many listeners.
      const handler: Handler = async (_job, { step, tenantId }) => {
        const service = app.get(IdempotencyService);
        const numbers = Array.from({ length: 12 }, (_, n) => n);
        await Promise.all(
          numbers.flatMap((n) => [
            step(`item-${n}`, () => n),
            service.once(`call:${n}`, ({ signal }) => signal.aborted, { tenantId }),
          ]),
        );
        return numbers.length;
      };
      const { app } = await apps.fresh(backend, { queues: ['orders'], providers: [order(handler)] });
      await enqueue(app, 'orders', 'order', {}, 'order:1');
      expect(await settled(app, 'order:1')).toMatchObject({ status: 'completed', result: 12 });
    } finally {
      process.off('warning', listen);
    }
    expect(warnings).toEqual([]);
  });

  it('a transactional step commits its writes with its outcome, or takes them back', async () => {
    await dataSourceOf(app()).query('CREATE TABLE stock (attempt integer)');
    let calls = 0;
    const tenant = await begin((_job, { step }) =>
      step(
        'reserve',
        async ({ transaction, attempt }) => {
          await transaction.query('INSERT INTO stock VALUES ($1)', [attempt]);
          if ((calls += 1) === 1) throw new TransientError('again');
        },
        { effect: 'transactional' },
      ),
    );
    expect(await settled(app(), 'order:1', tenant)).toMatchObject({ status: 'completed' });
    expect(await dataSourceOf(app()).query('SELECT count(*)::integer AS rows FROM stock')).toEqual([
      { rows: 1 },
    ]);
  });

  it('in doubt: the operation waits without attempts, and goes on when a person has said what happened', async () => {
    const runs: string[] = [];
    const tenant = await begin(async (_job, { step }) => {
      const mail = await step('mail', () => {
        runs.push('mail');
        throw new InDoubtError('nobody answered');
      });
      runs.push('after');
      return { mail };
    });
    await eventually(
      () => outcomeOf(app(), 'order:1', tenant),
      (outcome) => expect(outcome).toMatchObject({ status: 'retrying', attempts: 0 }),
    );
    expect(await lettersOf(app(), tenant)).toMatchObject([
      { reason: 'in_doubt', step_of: 'order:1', step: 'mail', payload: { cents: 5 } },
    ]);
    await app()
      .get(DeadLetterService)
      .resolve(
        { tenantId: tenant, operationKey: 'order:1', step: 'mail' },
        Reconciliation.applied({ sent: true }),
        BY,
      );
    expect(await settled(app(), 'order:1', tenant)).toMatchObject({
      status: 'completed',
      attempts: 1,
      result: { mail: { sent: true } },
    });
    expect(runs).toEqual(['mail', 'after']);
    expect(await lettersOf(app(), tenant)).toHaveLength(1);
  });

  it('in doubt and not applied: the step runs again, within its operation', async () => {
    let mails = 0;
    const tenant = await begin((_job, { step }) =>
      step('mail', () => {
        if ((mails += 1) === 1) throw new InDoubtError('nobody answered');
        return mails;
      }),
    );
    await eventually(
      () => lettersOf(app(), tenant),
      (letters) => expect(letters).toHaveLength(1),
    );
    await app()
      .get(DeadLetterService)
      .resolve({ tenantId: tenant, operationKey: 'order:1', step: 'mail' }, Reconciliation.notApplied(), BY);
    expect(await settled(app(), 'order:1', tenant)).toMatchObject({ status: 'completed', result: 2 });
  });

  it('a handler that swallows the doubt of a step does not complete over it', async () => {
    const tenant = await begin(async (_job, { step }) => {
      await step('mail', () => {
        throw new InDoubtError('nobody answered');
      }).catch(() => undefined);
      return 'done, it believes';
    });
    await eventually(
      () => stepOf(app(), 'order:1', 'mail', tenant),
      (outcome) => expect(outcome?.status).toBe('in_doubt'),
    );
    await eventually(
      () => outcomeOf(app(), 'order:1', tenant),
      (outcome) => expect(outcome).toMatchObject({ status: 'retrying', attempts: 0 }),
    );
  });

  it('a step that can be looked up is, by deferral of its operation', async () => {
    let asked = 0;
    let charged = 0;
    const tenant = await begin((_job, { step }) =>
      step(
        'charge',
        {
          run: () => {
            charged += 1;
            throw new InDoubtError('nobody answered');
          },
          reconcile: ({ operationKey }) => {
            asked += 1;
            return asked === 1 ? Reconciliation.unknown() : Reconciliation.applied(operationKey);
          },
        },
        { reconcile: { afterMs: [100, 300], thenEveryMs: 300, untilMs: 100_000 } },
      ),
    );
    expect(await settled(app(), 'order:1', tenant)).toMatchObject({
      status: 'completed',
      attempts: 1,
      result: 'order:1/charge',
    });
    expect([charged, asked]).toEqual([1, 2]);
    expect(await lettersOf(app(), tenant)).toEqual([]);
  });

  it('a permanent failure of a step is its operation’s, which a redrive runs again', async () => {
    let isMended = false;
    const tenant = await begin((_job, { step }) =>
      step('charge', () => {
        if (!isMended) throw new PermanentError('no such account');
        return 'charged';
      }),
    );
    expect(await settled(app(), 'order:1', tenant)).toMatchObject({ status: 'dead', attempts: 1 });
    expect(await lettersOf(app(), tenant)).toMatchObject([
      { reason: 'permanent_error', operation_key: 'order:1' },
    ]);
    isMended = true;
    await app().get(DeadLetterService).redrive({ tenantId: tenant, operationKey: 'order:1' }, BY);
    expect(await settled(app(), 'order:1', tenant)).toMatchObject({ status: 'completed', result: 'charged' });
  });

  it('an outdated name: a step is known by its name alone, whatever the deployment', async () => {
    const runs: string[] = [];
    const first: Handler = async (_job, { step }) => {
      await step('charge', () => runs.push('charge'));
      await step('old', () => runs.push('old'));
      throw new PermanentError('to be deployed again');
    };
    const { app, place } = await apps.fresh(backend, { queues: ['orders'], providers: [order(first)] });
    await enqueue(app, 'orders', 'order', {}, 'order:1');
    await settled(app, 'order:1');
    await apps.close(app);
    // Reordered, one added, one renamed: what is known by its name is not run again, all else is.
    const second: Handler = async (_job, { step }) => {
      await step('added', () => runs.push('added'));
      await step('new', () => runs.push('new'));
      return step('charge', () => runs.push('charge again'));
    };
    const later = await apps.beside(place, { queues: ['orders'], providers: [order(second)] });
    await later.get(DeadLetterService).redrive({ tenantId: 'acme', operationKey: 'order:1' }, BY);
    expect(await settled(later, 'order:1')).toMatchObject({ status: 'completed', result: 1 });
    expect(runs).toEqual(['charge', 'old', 'added', 'new']);
  });

  it.each<[string, Handler, RegExp]>([
    [
      'a name used twice',
      async (_job, { step }) => {
        await step('mail', () => 1);
        await step('mail', () => 2);
      },
      /Step "mail" was called twice/,
    ],
    ['no name', (_job, { step }) => step('', () => 1), /name of a step/],
    ['a name with a slash', (_job, { step }) => step('a/b', () => 1), /name of a step/],
    ['no function', (_job, { step }) => step('mail', undefined as never), /needs a function/],
    [
      'an effect that does not exist',
      (_job, { step }) => step('mail', () => 1, { effect: 'magic' as never }),
      /effect is "magic"/,
    ],
    [
      'reconciled without a way to ask',
      (_job, { step }) => step('mail', () => 1, { effect: 'reconciled' }),
      /\{ run, reconcile \}/,
    ],
  ])('refuse %s, with an error that says so', async (_what, handler, message) => {
    const tenant = await begin(handler);
    await eventually(
      () => outcomeOf(app(), 'order:1', tenant),
      (outcome) => expect(outcome?.error?.message).toMatch(message),
    );
  });

  it('refuse a handler that is unrepeatable, which could not resume', async () => {
    const tenant = await begin((_job, { step }) => step('mail', () => 1), 'unrepeatable');
    expect(await settled(app(), 'order:1', tenant)).toMatchObject({
      error: { message: expect.stringMatching(/"natural"/) },
    });
  });

  it('have a time of their own: a keyed step that takes longer is told so, and is run again', async () => {
    const aborted: boolean[] = [];
    const tenant = await begin((_job, { step }) =>
      step(
        'charge',
        async ({ attempt, signal }) => {
          if (attempt > 1) return 'charged';
          await new Promise((resolve) => signal.addEventListener('abort', resolve));
          aborted.push(signal.aborted);
          return 'too late';
        },
        { effect: 'keyed', timeoutMs: 200 },
      ),
    );
    expect(await settled(app(), 'order:1', tenant)).toMatchObject({
      status: 'completed',
      attempts: 2,
      result: 'charged',
    });
    expect(aborted).toEqual([true]);
    expect(await stepOf(app(), 'order:1', 'charge', tenant)).toMatchObject({ attempts: 2, failures: 1 });
  });

  it('live where no key of a producer can name them, nor be named by one', async () => {
    const tenant = await begin((job, { step }) =>
      job.name === 'order' ? step('receipt', () => 'of the step') : 'of the other operation',
    );
    await enqueue(app(), 'orders', 'other', {}, 'order:1/receipt', tenant);
    expect(await settled(app(), 'order:1/receipt', tenant)).toMatchObject({
      result: 'of the other operation',
    });
    expect(await settled(app(), 'order:1', tenant)).toMatchObject({
      status: 'completed',
      result: 'of the step',
    });
    await enqueue(app(), 'orders', 'order', {}, 'order:2', tenant);
    await settled(app(), 'order:2', tenant);
    // Neither by the key that is shown, nor by whatever stands between its parts in the ledger.
    expect(await outcomeOf(app(), 'order:2/receipt', tenant)).toBeUndefined();
    const [row] = await dataSourceOf(app()).query<{ operation_key: string }[]>(
      `SELECT operation_key FROM job_outcomes WHERE step_of = 'order:2' AND tenant_id = $1`,
      [tenant],
    );
    await expect(outcomeOf(app(), row?.operation_key as string, tenant)).rejects.toThrow(
      InvalidIdentityError,
    );
    await expect(enqueue(app(), 'orders', 'order', {}, row?.operation_key as string, tenant)).rejects.toThrow(
      InvalidIdentityError,
    );
  });

  it('follow-ups of a step come with its outcome', async () => {
    const tenant = await begin(async (job, { step, attempt }) => {
      if (job.name !== 'order') return 'followed';
      await step('charge', ({ enqueue: ask }) => {
        ask(idempotentQueue(app(), 'orders'), 'receipt', {}, { operationKey: 'receipt:1' });
      });
      if (attempt === 1) throw new TransientError('again');
      return 'ordered';
    });
    expect(await settled(app(), 'order:1', tenant)).toMatchObject({ status: 'completed' });
    expect(await settled(app(), 'receipt:1', tenant)).toMatchObject({ result: 'followed', attempts: 1 });
  });

  it('are remembered for as long as their operation, and go with it', async () => {
    const tenant = await begin((_job, { step }) => step('charge', () => 'charged'));
    await settled(app(), 'order:1', tenant);
    const keys = async (): Promise<string[]> =>
      (
        await dataSourceOf(app()).query<{ name: string }[]>(
          `SELECT COALESCE(step_of || ', step ' || step, operation_key) AS name FROM job_outcomes
           WHERE tenant_id = $1 ORDER BY 1`,
          [tenant],
        )
      ).map((row) => row.name);
    const prune = async (): Promise<void> => {
      await app().get(RetentionService).prune();
    };
    await dataSourceOf(app()).query(
      `UPDATE job_outcomes SET expires_at = clock_timestamp() - interval '1 day'
       WHERE step_of IS NOT NULL AND tenant_id = $1`,
      [tenant],
    );
    await prune();
    expect(await keys()).toEqual(['order:1', 'order:1, step charge']);
    await dataSourceOf(app()).query(
      `UPDATE job_outcomes SET expires_at = clock_timestamp() - interval '1 day' WHERE tenant_id = $1`,
      [tenant],
    );
    await prune();
    expect(await keys()).toEqual([]);
  });

  it('show themselves in the ledger', async () => {
    const tenant = await begin((_job, { step }) => step('charge', () => 'charged'));
    await settled(app(), 'order:1', tenant);
    const ref = { tenantId: tenant, operationKey: 'order:1', step: 'charge' };
    expect((await app().get(OutcomeService).history(ref)).map(({ kind }) => kind)).toEqual([
      'accepted',
      'completed',
    ]);
  });
});
