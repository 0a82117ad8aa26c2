import { type INestApplicationContext } from '@nestjs/common';
import { OutcomeService, PermanentError, Reconciliation, TransientError } from 'nestjs-idempotent-jobs';
import { DeadLetterService } from 'nestjs-idempotent-jobs/dead-letters';
import {
  DeadLetterNotFoundError,
  DeadLetterRefusedError,
  InvalidPayloadError,
  OperationConflictError,
  TenantMismatchError,
  UsageError,
} from 'nestjs-idempotent-jobs/errors';
import { describe, expect, it } from 'vitest';
import { useApps, useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import {
  asTenant,
  bullQueue,
  deliver,
  enqueue,
  idempotentQueue,
  type LetterRow,
  lettersOf,
  outcomeOf,
  settled,
} from '../support/ledger.js';
import { identifyPlain, processorOf, Scripts } from '../support/processors.js';
import { BACKENDS, dataSourceOf } from '../support/scenario.js';

const BY = { actor: 'ada', note: 'the bank is open again' };
const ONCE = { attempts: 1 };
const NOWHERE = '00000000-0000-4000-8000-000000000000';

function deadLetters(app: INestApplicationContext): DeadLetterService {
  return app.get(DeadLetterService);
}

/** What was done by hand to what is the tenant's, in order. */
function actionsOf(
  app: INestApplicationContext,
  tenantId: string,
): Promise<{ action: string; actor: string; note: string }[]> {
  return dataSourceOf(app).query(
    'SELECT action, actor, note FROM job_actions WHERE tenant_id = $1 ORDER BY id',
    [tenantId],
  );
}

/**
 * What the ledger has of the tenant, and all that was done by hand, as text: to see that nothing was changed.
 * A letter without a tenant has it in its payload.
 */
async function ledgerOf(app: INestApplicationContext, tenantId: string): Promise<string> {
  const theirs = ['job_outcomes', 'dead_letters', 'job_attempts'].map((table) =>
    dataSourceOf(app).query(`SELECT t::text FROM ${table} t WHERE t::text LIKE '%' || $1 || '%' ORDER BY 1`, [
      tenantId,
    ]),
  );
  const everybodys = ['job_actions', 'dead_letter_redrives'].map((table) =>
    dataSourceOf(app).query(`SELECT t::text FROM ${table} t ORDER BY 1`),
  );
  return JSON.stringify(await Promise.all([...theirs, ...everybodys]));
}

/** A case's own tenant, and the letter that most cases are about. */
interface Own {
  readonly tenantId: string;
  readonly letter: { readonly tenantId: string; readonly operationKey: string };
}

describe.each(BACKENDS)('a dead letter that comes back, on %s', (backend) => {
  const apps = useApps();
  const scripts = new Scripts();
  const CHARGES = { effect: 'keyed', retry: ONCE, identify: identifyPlain } as const;
  const app = useOneApp(backend, {
    queues: ['charges', 'unsure', 'forgetful'],
    providers: [
      processorOf('charges', CHARGES, scripts.handler),
      processorOf('unsure', { effect: 'unrepeatable' }, scripts.handler),
      processorOf('forgetful', { effect: 'keyed', keyRetentionMs: 300, retry: ONCE }, scripts.handler),
    ],
    jobs: { deadLetters: { editedRedrive: true } },
  });

  const ownOf = (tenantId: string): Own => ({
    tenantId,
    letter: { tenantId, operationKey: 'charge:1' },
  });

  /** A tenant whose charges fail while the bank is closed. */
  function bank(): Own & { runs: string[]; door: { isOpen: boolean } } {
    const runs: string[] = [];
    const door = { isOpen: false };
    const tenantId = scripts.tenantWith((job, operation) => {
      runs.push(`${operation.operationKey}#${operation.attempt}`);
      if (!door.isOpen) throw new TransientError('the bank is closed');
      return { charged: job.data as unknown };
    });
    return { ...ownOf(tenantId), runs, door };
  }

  /** A tenant with an operation of which nobody knows whether it has happened. */
  async function inDoubt(): Promise<Own> {
    const tenantId = scripts.tenantWith((job) => {
      if ((job.data as { sure?: boolean }).sure !== true) throw new Error('who knows');
    });
    await enqueue(app(), 'unsure', 'charge', { amount: 5 }, 'charge:1', tenantId);
    expect(await settled(app(), 'charge:1', tenantId)).toMatchObject({ status: 'in_doubt' });
    await eventually(
      () => lettersOf(app(), tenantId),
      (letters) => expect(letters).toMatchObject([{ dispatch_due_at: null }]),
    );
    return ownOf(tenantId);
  }

  /** Delivers a job of the tenant that names no operation. What it returns asks for the job's letters. */
  async function deliverNameless(tenantId: string, rest: object = {}): Promise<() => Promise<LetterRow[]>> {
    const job = await deliver(app(), 'charges', '', rest, tenantId);
    return () =>
      dataSourceOf(app()).query<LetterRow[]>(
        `SELECT * FROM dead_letters WHERE queue = 'charges' AND job_id = $1`,
        [job.id],
      );
  }

  it('runs again under its own key, as a first attempt, and its letter says by whose hand', async () => {
    const { tenantId, runs, door } = bank();
    await enqueue(app(), 'charges', 'charge', { amount: 5 }, 'charge:1', tenantId);
    await settled(app(), 'charge:1', tenantId);
    const [letter] = (await deadLetters(app()).list({ tenantId })).letters;
    door.isOpen = true;

    const result = await deadLetters(app()).redrive(letter?.id as string, BY);
    expect(result).toEqual({ letterId: letter?.id, outcome: 'redriven', dryRun: false });
    expect(await settled(app(), 'charge:1', tenantId)).toMatchObject({
      status: 'completed',
      attempts: 1,
      failures: 0,
      result: { charged: { amount: 5 } },
    });
    expect(runs).toEqual(['charge:1#1', 'charge:1#1']);
    expect(await deadLetters(app()).get(letter?.id as string)).toMatchObject({
      resolved: { as: 'redriven', ...BY },
      payload: { amount: 5 },
    });
    expect(await actionsOf(app(), tenantId)).toEqual([{ action: 'redrive', ...BY }]);
    expect((await deadLetters(app()).list({ tenantId })).letters).toEqual([]);
  });

  it('that dies again has a second letter, and comes back again', async () => {
    const { tenantId, letter, runs, door } = bank();
    await enqueue(app(), 'charges', 'charge', {}, 'charge:1', tenantId);
    await settled(app(), 'charge:1', tenantId);
    await deadLetters(app()).redrive(letter, BY);
    await eventually(
      () => lettersOf(app(), tenantId),
      (letters) => expect(letters).toHaveLength(2),
    );
    door.isOpen = true;
    await deadLetters(app()).redrive(letter, BY);
    expect(await settled(app(), 'charge:1', tenantId)).toMatchObject({ status: 'completed' });
    expect(runs).toHaveLength(3);
  });

  it('keeps priority, and the deadline its producer gave; past it, it needs another', async () => {
    const { tenantId, letter, door } = bank();
    const deadline = new Date(Date.now() + 1500);
    await idempotentQueue(app(), 'charges').enqueue(
      'charge',
      {},
      { operationKey: 'charge:1', tenantId, priority: 7, deadline },
    );
    await settled(app(), 'charge:1', tenantId);
    await eventually(
      () => Date.now(),
      (now) => expect(now).toBeGreaterThan(deadline.getTime() + 100),
    );
    await expect(deadLetters(app()).redrive(letter, BY)).rejects.toThrow(/deadline.*has passed/);
    door.isOpen = true;
    const later = new Date(Date.now() + 60_000);
    await deadLetters(app()).redrive(letter, { ...BY, deadline: later });
    const { jobId } = await settled(app(), 'charge:1', tenantId);
    expect(await bullQueue(app(), 'charges').getJob(jobId)).toMatchObject({
      priority: 7,
      data: { operation: { deadlineAt: later.toISOString() } },
    });
  });

  it('whose operation has completed meanwhile is closed, and nothing runs', async () => {
    const { tenantId, letter, runs } = bank();
    await enqueue(app(), 'charges', 'charge', {}, 'charge:1', tenantId);
    await settled(app(), 'charge:1', tenantId);
    await dataSourceOf(app()).query(
      `UPDATE job_outcomes SET status = 'completed', expires_at = clock_timestamp() + interval '1 day'
       WHERE tenant_id = $1`,
      [tenantId],
    );
    expect(await deadLetters(app()).redrive(letter, BY)).toMatchObject({ outcome: 'completed' });
    expect(await lettersOf(app(), tenantId)).toMatchObject([{ resolution: 'completed' }]);
    expect(runs).toHaveLength(1);
  });

  it('of two redrives at once, one brings it back, and the other is refused', async () => {
    const { tenantId, runs, door } = bank();
    await enqueue(app(), 'charges', 'charge', {}, 'charge:1', tenantId);
    await settled(app(), 'charge:1', tenantId);
    door.isOpen = true;
    const letter = (await lettersOf(app(), tenantId))[0]?.id as string;
    const results = await Promise.allSettled(
      Array.from({ length: 5 }, () => deadLetters(app()).redrive(letter, BY)),
    );
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    await settled(app(), 'charge:1', tenantId);
    expect(runs).toHaveLength(2);
  });

  it.each([
    [
      'closes the letter',
      `UPDATE dead_letters SET resolved_at = clock_timestamp(), resolution = 'discarded',
         actor = 'bob', note = 'no'
       WHERE tenant_id = $1`,
      /resolved already/,
    ],
    [
      'completes the operation',
      `UPDATE job_outcomes SET status = 'completed', expires_at = clock_timestamp() + interval '1 day'
       WHERE tenant_id = $1`,
      undefined,
    ],
  ])('that meets a transaction which %s, waits for it and runs nothing', async (_title, sql, refusal) => {
    const { tenantId, letter, runs, door } = bank();
    await enqueue(app(), 'charges', 'charge', {}, 'charge:1', tenantId);
    await settled(app(), 'charge:1', tenantId);
    door.isOpen = true;
    let redriven: Promise<unknown> = Promise.resolve();
    await dataSourceOf(app()).transaction(async (manager) => {
      await manager.query(sql, [tenantId]);
      redriven = deadLetters(app())
        .redrive(letter, BY)
        .catch((error: unknown) => error);
      // Until it is seen to wait for the row.
      await eventually(
        () =>
          dataSourceOf(app()).query(
            `SELECT count(*)::integer AS waiting FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE '%permit AS%'`,
          ),
        (rows) => expect(rows).toMatchObject([{ waiting: 1 }]),
      );
    });
    const result = await redriven;
    if (refusal === undefined) expect(result).toMatchObject({ outcome: 'completed' });
    else expect((result as Error).message).toMatch(refusal);
    expect(runs).toHaveLength(1);
    expect((await outcomeOf(app(), 'charge:1', tenantId))?.status).toBe(
      refusal === undefined ? 'completed' : 'dead',
    );
  });

  it('a conflicting request is discarded without touching the dead operation whose key it wanted', async () => {
    const { tenantId } = bank();
    await deliver(app(), 'charges', 'charge:1', { amount: 5 }, tenantId);
    await settled(app(), 'charge:1', tenantId);
    await deliver(app(), 'charges', 'charge:1', { amount: 6 }, tenantId);
    const letters = await eventually(
      () => lettersOf(app(), tenantId),
      (found) => expect(found).toHaveLength(2),
    );
    const conflict = letters.find((letter) => letter.reason === 'idempotency_conflict');
    await deadLetters(app()).discard(conflict?.id as string, BY);
    expect(
      await dataSourceOf(app()).query('SELECT status, expires_at FROM job_outcomes WHERE tenant_id = $1', [
        tenantId,
      ]),
    ).toEqual([{ status: 'dead', expires_at: null }]);
    expect((await deadLetters(app()).list({ tenantId })).letters).toMatchObject([
      { reason: 'retries_exhausted' },
    ]);
  });

  it('a stray retry of the failed job, after its operation has completed by redrive, replays the result', async () => {
    const { tenantId, letter, runs, door } = bank();
    const { jobId } = (await enqueue(app(), 'charges', 'charge', {}, 'charge:1', tenantId)) as {
      jobId: string;
    };
    await settled(app(), 'charge:1', tenantId);
    door.isOpen = true;
    await deadLetters(app()).redrive(letter, BY);
    await settled(app(), 'charge:1', tenantId);
    await eventually(
      () => bullQueue(app(), 'charges').getJobState(jobId),
      (state) => expect(state).toBe('failed'),
    );
    const failed = await bullQueue(app(), 'charges').getJob(jobId);
    await failed?.retry();
    await eventually(
      () => bullQueue(app(), 'charges').getJobState(jobId),
      (state) => expect(state).toBe('completed'),
    );
    expect(runs).toHaveLength(2);
  });

  it('a dry run says what would happen, and changes nothing', async () => {
    const { tenantId, letter } = bank();
    await enqueue(app(), 'charges', 'charge', {}, 'charge:1', tenantId);
    await settled(app(), 'charge:1', tenantId);
    await eventually(
      () => lettersOf(app(), tenantId),
      (letters) => expect(letters).toMatchObject([{ dispatch_due_at: null }]),
    );
    const before = await ledgerOf(app(), tenantId);
    const dry = { ...BY, dryRun: true };
    expect(await deadLetters(app()).redrive(letter, dry)).toMatchObject({
      outcome: 'redriven',
      dryRun: true,
    });
    await deadLetters(app()).discard(letter, dry);
    await deadLetters(app()).redriveEdited(letter, { tenantId, operationKey: 'charge:1:2' }, dry);
    expect(await deadLetters(app()).redriveMany({ queue: 'charges', tenantId }, dry)).toEqual({
      redriveId: undefined,
      letters: 1,
      leftOut: 0,
      dryRun: true,
    });
    await expect(deadLetters(app()).resolve(letter, Reconciliation.applied(), dry)).rejects.toThrow(
      /not in doubt/,
    );
    expect(await ledgerOf(app(), tenantId)).toBe(before);
  });

  it('discarded, it is closed; its operation stays dead, and a stray retry runs nothing', async () => {
    const { tenantId, letter, runs } = bank();
    await enqueue(app(), 'charges', 'charge', {}, 'charge:1', tenantId);
    await settled(app(), 'charge:1', tenantId);
    await deadLetters(app()).discard(letter, BY);
    expect(await outcomeOf(app(), 'charge:1', tenantId)).toMatchObject({ status: 'dead' });
    expect(await enqueue(app(), 'charges', 'charge', {}, 'charge:1', tenantId)).toMatchObject({
      duplicate: true,
      status: 'dead',
    });
    expect(runs).toHaveLength(1);
    expect(await actionsOf(app(), tenantId)).toEqual([{ action: 'discard', ...BY }]);
  });

  describe('in doubt', () => {
    it('is not redriven before somebody has said what happened', async () => {
      const { letter } = await inDoubt();
      await expect(deadLetters(app()).redrive(letter, BY)).rejects.toThrow(/resolve it as applied or as not/);
    });

    it('resolved as applied, it completes with that result, which is replayed from then on', async () => {
      const { tenantId, letter } = await inDoubt();
      expect(
        await deadLetters(app()).resolve(letter, Reconciliation.applied({ receipt: 'r-1' }), BY),
      ).toMatchObject({
        outcome: 'applied',
        dryRun: false,
      });
      expect(await outcomeOf(app(), 'charge:1', tenantId)).toMatchObject({
        status: 'completed',
        result: { receipt: 'r-1' },
        doubtSince: undefined,
      });
      expect(await enqueue(app(), 'unsure', 'charge', { amount: 5 }, 'charge:1', tenantId)).toMatchObject({
        duplicate: true,
        status: 'completed',
        result: { receipt: 'r-1' },
      });
      expect(await lettersOf(app(), tenantId)).toMatchObject([{ resolution: 'applied' }]);
      expect(await actionsOf(app(), tenantId)).toEqual([{ action: 'resolve_applied', ...BY }]);
    });

    it('resolved as not applied, it runs again', async () => {
      const { tenantId, letter } = await inDoubt();
      await deadLetters(app()).resolve(letter, Reconciliation.notApplied(), BY);
      // The handler is as unsure as before, so it ends in doubt again, by a second letter.
      await eventually(
        () => lettersOf(app(), tenantId),
        (letters) =>
          expect(letters).toMatchObject([
            { resolution: 'not_applied' },
            { reason: 'in_doubt', resolution: null },
          ]),
      );
      expect(await actionsOf(app(), tenantId)).toEqual([{ action: 'resolve_not_applied', ...BY }]);
    });

    it('whose operation has completed, is not resolved as not applied', async () => {
      const { tenantId, letter } = await inDoubt();
      await dataSourceOf(app()).query(
        `UPDATE job_outcomes SET status = 'completed', settled_at = clock_timestamp(), doubt_since = NULL
         WHERE tenant_id = $1`,
        [tenantId],
      );
      await expect(deadLetters(app()).resolve(letter, Reconciliation.notApplied(), BY)).rejects.toThrow(
        /has completed/,
      );
      expect(await deadLetters(app()).redrive(letter, BY)).toMatchObject({ outcome: 'completed' });
    });

    it('a result that is not JSON is refused, and nothing is changed', async () => {
      const { tenantId, letter } = await inDoubt();
      const before = await ledgerOf(app(), tenantId);
      await expect(
        deadLetters(app()).resolve(letter, Reconciliation.applied({ amount: 5n }), BY),
      ).rejects.toThrow(InvalidPayloadError);
      await expect(deadLetters(app()).resolve(letter, 'applied' as never, BY)).rejects.toThrow(UsageError);
      expect(await ledgerOf(app(), tenantId)).toBe(before);
    });

    it('discarded, its operation is dead', async () => {
      const { tenantId, letter } = await inDoubt();
      await deadLetters(app()).discard(letter, BY);
      expect(await outcomeOf(app(), 'charge:1', tenantId)).toMatchObject({ status: 'dead' });
    });
  });

  it('keyed and doubtful, past the time its service remembers keys, it falls in doubt instead of running', async () => {
    let runs = 0;
    const tenantId = scripts.tenantWith(() => {
      runs += 1;
      throw Object.assign(new Error('socket hang up'), { code: 'ECONNRESET' });
    });
    await enqueue(app(), 'forgetful', 'charge', {}, 'charge:1', tenantId);
    expect(await settled(app(), 'charge:1', tenantId)).toMatchObject({ status: 'dead' });
    const [{ ended }] = (await dataSourceOf(app()).query(
      `SELECT pg_sleep(0.4), repeatable_until < clock_timestamp() AS ended
       FROM job_outcomes WHERE tenant_id = $1`,
      [tenantId],
    )) as [{ ended: boolean }];
    expect(ended).toBe(true);
    await deadLetters(app()).redrive({ tenantId, operationKey: 'charge:1' }, BY);
    expect(
      await eventually(
        () => outcomeOf(app(), 'charge:1', tenantId),
        (outcome) => expect(outcome).toMatchObject({ status: 'in_doubt' }),
      ),
    ).toMatchObject({ attempts: 0 });
    expect(runs).toBe(1);
  });

  describe('without an identity of its own', () => {
    it('is given one by hand, and the new operation names the letter', async () => {
      const { tenantId, runs, door } = bank();
      door.isOpen = true;
      const nameless = await deliverNameless(tenantId, { amount: 5 });
      const [letter] = await eventually(nameless, (letters) =>
        expect(letters).toMatchObject([{ reason: 'identity_missing' }]),
      );
      await expect(deadLetters(app()).redrive(letter?.id as string, BY)).rejects.toThrow(/redriveEdited/);
      const edit = { tenantId, operationKey: 'charge:1', payload: { amount: 5 } };
      await deadLetters(app()).redriveEdited(letter?.id as string, edit, BY);
      expect(await settled(app(), 'charge:1', tenantId)).toMatchObject({
        result: { charged: { amount: 5 } },
      });
      expect(runs).toEqual(['charge:1#1']);
      expect(
        await dataSourceOf(app()).query('SELECT redriven_from FROM job_outcomes WHERE tenant_id = $1', [
          tenantId,
        ]),
      ).toEqual([{ redriven_from: letter?.id }]);
      expect(await app().get(OutcomeService).history(edit)).toMatchObject([
        { kind: 'accepted' },
        { kind: 'action', action: 'redrive_edited', ...BY, letterId: letter?.id },
        { kind: 'completed' },
      ]);
    });

    it('is refused a key that another request has, and stays open', async () => {
      const { tenantId, door } = bank();
      door.isOpen = true;
      await enqueue(app(), 'charges', 'charge', { amount: 1 }, 'charge:1', tenantId);
      await settled(app(), 'charge:1', tenantId);
      const nameless = await deliverNameless(tenantId);
      const [letter] = await eventually(nameless, (letters) => expect(letters).toHaveLength(1));
      const edit = { tenantId, operationKey: 'charge:1', payload: { amount: 2 } };
      await expect(deadLetters(app()).redriveEdited(letter?.id as string, edit, BY)).rejects.toThrow(
        OperationConflictError,
      );
      const { letters } = await deadLetters(app()).list({ queue: 'charges' });
      expect(letters.filter(({ id }) => id === letter?.id)).toHaveLength(1);
    });

    it('is refused the key of an operation that exists, also for the same request, and a dry run says so', async () => {
      const { tenantId, door } = bank();
      door.isOpen = true;
      await enqueue(app(), 'charges', 'charge', { amount: 1 }, 'charge:1', tenantId);
      await settled(app(), 'charge:1', tenantId);
      const nameless = await deliverNameless(tenantId);
      const [letter] = await eventually(nameless, (letters) =>
        expect(letters).toMatchObject([{ dispatch_due_at: null }]),
      );
      const before = await ledgerOf(app(), tenantId);
      const edit = { tenantId, operationKey: 'charge:1', payload: { amount: 1 } };
      for (const dryRun of [true, false]) {
        await expect(
          deadLetters(app()).redriveEdited(letter?.id as string, edit, { ...BY, dryRun }),
        ).rejects.toThrow(/exists already/);
      }
      expect(await ledgerOf(app(), tenantId)).toBe(before);
    });

    it('that is in doubt is not given another key: what happened must be said first', async () => {
      const { tenantId, letter } = await inDoubt();
      const edit = { tenantId, operationKey: 'charge:1:2' };
      await expect(deadLetters(app()).redriveEdited(letter, edit, BY)).rejects.toThrow(
        /nobody knows whether/,
      );
      expect(await outcomeOf(app(), 'charge:1:2', tenantId)).toBeUndefined();
      expect((await deadLetters(app()).list({ tenantId })).letters).toHaveLength(1);
    });

    it('whose payload was wrong runs mended under another key; its own operation stays dead, and is forgotten in time', async () => {
      const { tenantId, letter, runs, door } = bank();
      await enqueue(app(), 'charges', 'charge', { amount: -5 }, 'charge:1', tenantId);
      await settled(app(), 'charge:1', tenantId);
      door.isOpen = true;
      const edit = { tenantId, operationKey: 'charge:1:2', payload: { amount: 5 } };
      await deadLetters(app()).redriveEdited(letter, edit, BY);
      expect(await settled(app(), 'charge:1:2', tenantId)).toMatchObject({
        result: { charged: { amount: 5 } },
      });
      expect(runs).toEqual(['charge:1#1', 'charge:1:2#1']);
      expect(
        await dataSourceOf(app()).query(
          `SELECT status FROM job_outcomes
           WHERE tenant_id = $1 AND operation_key = 'charge:1' AND expires_at IS NOT NULL`,
          [tenantId],
        ),
      ).toEqual([{ status: 'dead' }]);
      expect(await app().get(OutcomeService).history(letter)).toMatchObject([
        {},
        {},
        { kind: 'dead_lettered' },
        { kind: 'action', action: 'redrive_edited' },
      ]);
    });

    it('is not given one where that is switched off', async () => {
      const { app } = await apps.fresh(backend, {
        queues: ['charges'],
        providers: [processorOf('charges', CHARGES, () => undefined)],
      });
      await deliver(app, 'charges', '');
      const [letter] = await eventually(
        () => lettersOf(app),
        (letters) => expect(letters).toHaveLength(1),
      );
      const edit = { tenantId: 'acme', operationKey: 'charge:1' };
      await expect(deadLetters(app).redriveEdited(letter?.id as string, edit, BY)).rejects.toThrow(
        /editedRedrive: true/,
      );
    });
  });

  describe('bad input', () => {
    it('is refused with a clear error, and changes nothing', async () => {
      const { tenantId, letter, door } = bank();
      await enqueue(app(), 'charges', 'charge', {}, 'charge:1', tenantId);
      await settled(app(), 'charge:1', tenantId);
      await eventually(
        () => lettersOf(app(), tenantId),
        (letters) => expect(letters).toMatchObject([{ dispatch_due_at: null }]),
      );
      door.isOpen = true;
      const service = deadLetters(app());
      const before = await ledgerOf(app(), tenantId);
      const refusals: [() => Promise<unknown>, new (...args: never[]) => Error, RegExp][] = [
        [() => service.redrive(NOWHERE, BY), DeadLetterNotFoundError, /no dead letter/],
        [() => service.redrive('17', BY), UsageError, /UUID/],
        [() => service.discard(NOWHERE, BY), DeadLetterNotFoundError, /no dead letter/],
        [
          () => service.resolve(NOWHERE, Reconciliation.notApplied(), BY),
          DeadLetterNotFoundError,
          /no dead letter/,
        ],
        [
          () => service.redrive({ tenantId: 'globex', operationKey: 'charge:1' }, BY),
          DeadLetterNotFoundError,
          /globex/,
        ],
        [
          () => service.resolve(letter, Reconciliation.notApplied(), BY),
          DeadLetterRefusedError,
          /not in doubt/,
        ],
        [() => service.redrive(letter, { actor: '', note: 'n' }), UsageError, /actor/],
        [() => service.redrive(letter, { actor: 'a', note: ' ' }), UsageError, /note/],
        [() => service.redrive(letter, { ...BY, deadline: new Date(Date.now() - 1) }), UsageError, /future/],
        [() => service.list({ reason: 'bored' as never }), UsageError, /must be one of/],
        [() => service.list({ from: new Date('x') }), UsageError, /valid Date/],
        [() => service.list({}, { after: 'page two' }), UsageError, /next/],
        [() => service.list({}, { limit: 0 }), UsageError, /limit/],
        [() => service.list({}, { open: 'maybe' as never }), UsageError, /open/],
        [() => service.list({ tenant: tenantId } as never), UsageError, /"tenant" is no condition/],
        [() => service.list(null as never), UsageError, /object/],
        [() => service.list({ from: new Date(-8e15) }), UsageError, /valid Date/],
        [
          () => service.list({}, { after: Buffer.from(`-999.${NOWHERE}`).toString('base64url') }),
          UsageError,
          /next/,
        ],
        [() => service.get(undefined as never), UsageError, /Name a letter/],
        [() => service.redrives({ queue: 'a\0b' }), UsageError, /NUL/],
        [() => service.redriveMany({ queue: 'charges' }, { ...BY, canary: 1e10 }), UsageError, /canary/],
        [() => service.redrive(NOWHERE, { ...BY, dryRun: 'true' as never }), UsageError, /dryRun/],
        [() => service.redrive(NOWHERE, undefined as never), UsageError, /actor/],
        [() => service.redriveMany({ queue: 'refunds' }, BY), DeadLetterNotFoundError, /No open letter/],
        [() => service.redriveMany({} as never, BY), UsageError, /source queue/],
        [() => service.redriveMany({ queue: 'charges' }, { ...BY, ratePerSecond: 501 }), UsageError, /500/],
        [() => service.redriveMany({ queue: 'charges' }, { ...BY, canary: -1 }), UsageError, /canary/],
        [() => service.cancelRedrive(NOWHERE, BY), DeadLetterNotFoundError, /no redrive/],
        [() => asTenant(app(), 'globex', () => service.redrive(letter, BY)), TenantMismatchError, /globex/],
      ];
      for (const [act, type, message] of refusals) {
        const error = await act().catch((thrown: unknown) => thrown);
        expect(error).toBeInstanceOf(type);
        expect((error as Error).message).toMatch(message);
      }
      expect(await ledgerOf(app(), tenantId)).toBe(before);
      await service.redrive(letter, BY);
      await settled(app(), 'charge:1', tenantId);
      const id = (await lettersOf(app(), tenantId))[0]?.id as string;
      await expect(service.redrive(id, BY)).rejects.toThrow(/resolved already/);
      await expect(service.discard(id, BY)).rejects.toThrow(/resolved already/);
    });

    it("another tenant's letter does not exist inside a tenant's frame", async () => {
      const { tenantId, letter } = bank();
      await enqueue(app(), 'charges', 'charge', {}, 'charge:1', tenantId);
      await settled(app(), 'charge:1', tenantId);
      const id = (await lettersOf(app(), tenantId))[0]?.id as string;
      const service = deadLetters(app());
      await asTenant(app(), 'globex', async () => {
        expect((await service.list()).letters).toEqual([]);
        expect(await service.groups()).toEqual([]);
        await expect(service.redrive(id, BY)).rejects.toThrow(DeadLetterNotFoundError);
        await expect(service.redriveMany({ queue: 'charges' }, BY)).rejects.toThrow(DeadLetterNotFoundError);
      });
      const plan = await asTenant(app(), tenantId, async () => {
        expect((await service.list()).letters).toHaveLength(1);
        return service.redriveMany({ queue: 'charges' }, BY);
      });
      const redriveId = plan.redriveId as string;
      await asTenant(app(), 'globex', async () => {
        expect(await service.redrives()).toEqual([]);
        await expect(service.getRedrive(redriveId)).rejects.toThrow(DeadLetterNotFoundError);
        await expect(service.cancelRedrive(redriveId, BY)).rejects.toThrow(DeadLetterNotFoundError);
        await expect(app().get(OutcomeService).get(letter)).rejects.toThrow(TenantMismatchError);
        await expect(app().get(OutcomeService).history(letter)).rejects.toThrow(TenantMismatchError);
      });
      await asTenant(app(), tenantId, async () => expect(await service.redrives()).toHaveLength(1));
      // It ends before another case looks at what was done by hand.
      await eventually(
        () => service.getRedrive(redriveId),
        ({ status }) => expect(status).toBe('completed'),
      );
    });
  });

  it('letters are grouped by cause, and listed page by page, whatever happens meanwhile', async () => {
    const processor = processorOf('charges', { effect: 'keyed', retry: ONCE }, (job) => {
      const { order } = job.data as { order: number };
      if (order % 3 === 0) throw new PermanentError(`order ${order} has no card`);
      throw new TypeError('amount is undefined');
    });
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    const requests = Array.from({ length: 30 }, (_, order) => ({
      name: 'charge',
      payload: { order },
      operationKey: `charge:${order}`,
      tenantId: order < 3 ? 'globex' : 'acme',
    }));
    await idempotentQueue(app, 'charges').enqueueMany(requests);
    await eventually(
      () => lettersOf(app),
      (letters) => expect(letters).toHaveLength(30),
    );
    const service = deadLetters(app);
    expect(await service.groups()).toMatchObject([
      { letters: 20, queue: 'charges', reason: 'permanent_error', sample: { error: { name: 'TypeError' } } },
      { letters: 10, sample: { error: { name: 'PermanentError' } } },
    ]);
    const [largest] = await service.groups({ tenantId: 'globex' });
    expect(largest).toMatchObject({ letters: 2 });

    const seen: (string | undefined)[] = [];
    let after: string | undefined;
    do {
      const page = await service.list({ tenantId: 'acme' }, { limit: 10, ...(after && { after }) });
      seen.push(...page.letters.map((letter) => letter.operationKey));
      // What is closed or new meanwhile moves no page.
      await service.discard(page.letters[0]?.id as string, BY);
      after = page.next;
    } while (after !== undefined);
    expect(seen).toHaveLength(27);
    expect(new Set(seen).size).toBe(27);
    expect((await service.list({}, { open: false, limit: 100 })).letters).toHaveLength(3);
    expect(
      (await service.list({ fingerprint: largest?.fingerprint as string }, { limit: 100, open: 'any' }))
        .letters,
    ).toHaveLength(20);
  });
});
