import { existsSync } from 'node:fs';
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DelayedError, type Job } from 'bullmq';
import { TransientError } from 'nestjs-idempotent-jobs';
import { fencedUpdate } from 'nestjs-idempotent-jobs/calls';
import { type JobEvent, JobEvents } from 'nestjs-idempotent-jobs/observe';
import type { Effect } from 'nestjs-idempotent-jobs/types';
import { Pool } from 'pg';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { attemptKindsOf, enqueue, settled } from '../support/ledger.js';
import { Gate, processorOf } from '../support/processors.js';
import { ANY_BACKEND, BACKENDS, dataSourceOf } from '../support/scenario.js';
import { useProcesses } from '../support/processes.js';
import { LONG_LEASE_MS, type WorkerScript } from '../support/script.js';

const CREATE = 'CREATE TABLE accounts (id integer PRIMARY KEY, by_pid integer, fence bigint)';

/** What an attempt can come to, as its worker tells it. */
const END_OF_ATTEMPT: ReadonlySet<JobEvent['kind']> = new Set([
  'completed',
  'retrying',
  'in_doubt',
  'dead',
  'late_result_discarded',
  'fence_rejected',
  'handed_back',
] as const);

/** What the history has of an attempt that lost its operation to another one. */
const LOST: ReadonlySet<string> = new Set(['taken_over', 'surrendered']);

/** Whoever looks sees all of it or nothing. */
async function say(file: string, verdict: string): Promise<void> {
  await writeFile(`${file}.part`, verdict);
  await rename(`${file}.part`, file);
}

describe.each(BACKENDS)('fenced writes to tables of the application, on %s', (backend) => {
  const apps = useApps();
  const workers = useProcesses();

  it('a zombie that comes back while another worker has gone on loses, and the row stays as the other wrote it', async () => {
    const { app, place } = await apps.fresh(backend, { queues: ['charges'] });
    await dataSourceOf(app).query(`${CREATE}; INSERT INTO accounts (id) VALUES (1)`);
    const script = { place, effect: 'natural', act: 'write fenced' } as const;
    const zombie = await workers.start({ ...script, workMs: 3000, leaseMs: 2000 });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await zombie.reached('handler');
    zombie.signal('SIGSTOP');

    const heir = await workers.start({ ...script, leaseMs: LONG_LEASE_MS });
    expect(await heir.reached('fenced')).toMatchObject({ outcome: 'written' });
    await settled(app, 'charge:1');

    zombie.signal('SIGCONT');
    expect(await zombie.reached('fenced')).toMatchObject({ outcome: 'outdated' });
    expect(await dataSourceOf(app).query('SELECT by_pid FROM accounts')).toEqual([{ by_pid: heir.pid }]);
  });

  it.each<[Effect, string, WorkerScript['act'], JobEvent['kind']]>([
    ['keyed', 'succeed', 'block until told', 'fence_rejected'],
    ['natural', 'fail', 'block until told', 'fence_rejected'],
    // BullMQ has its job already.
    ['natural', 'hand back', 'put off and block until told', 'handed_back'],
  ])(
    '%s: a zombie that comes back to %s while its heir is still running records nothing, and the heir ends the operation',
    async (effect, verdict, act, end) => {
      const { app, place } = await apps.fresh(backend, { queues: ['charges'] });
      const directory = await mkdtemp(join(tmpdir(), 'zombie-'));
      const script = { place, effect } as const;
      const tell = { zombie: join(directory, 'zombie'), heir: join(directory, 'heir') };
      const zombie = await workers.start({ ...script, act, leaseMs: 1000, tellBy: tell.zombie });
      await enqueue(app, 'charges', 'charge', {}, 'charge:1');
      await eventually(
        () => existsSync(`${tell.zombie}.blocked`),
        (isBlocked) => expect(isBlocked).toBe(true),
      );
      zombie.signal('SIGSTOP');
      const heir = await workers.start({
        ...script,
        act: 'hold until told',
        leaseMs: LONG_LEASE_MS,
        tellBy: tell.heir,
      });
      const { fencingToken } = await heir.reached('handler');

      await say(tell.zombie, verdict);
      zombie.signal('SIGCONT');
      await eventually(
        () => zombie.events.filter((kind) => END_OF_ATTEMPT.has(kind)),
        (ends) => expect(ends).toEqual([end]),
      );
      const [row] = await dataSourceOf(app).query<{ fencing_token: string }[]>(
        'SELECT status, attempts, fencing_token, result, error FROM job_outcomes',
      );
      expect(row).toEqual({
        status: 'running',
        attempts: 2,
        fencing_token: String(fencingToken),
        result: null,
        error: null,
      });

      await say(tell.heir, 'succeed');
      expect(await settled(app, 'charge:1')).toMatchObject({
        status: 'completed',
        attempts: 2,
        result: { by: heir.pid },
      });
      expect((await attemptKindsOf(app, 'charge:1')).filter((kind) => !LOST.has(kind))).toEqual([]);
      await rm(directory, { recursive: true });
    },
  );

  it('an attempt whose operation went to another worker is told so by its signal, and does not prolong the lease of that', async () => {
    const gate = new Gate();
    const whys: unknown[] = [];
    const processor = processorOf(
      'charges',
      { effect: 'natural', leaseMs: 1000 },
      async (_job, _operation, signal) => {
        signal.addEventListener('abort', () => whys.push(signal.reason));
        await gate.pass();
      },
    );
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await gate.arrival;
    await dataSourceOf(app).query(`UPDATE job_outcomes SET
      fencing_token = fencing_token + 1, run_id = 'another', lease_expires_at = now() + interval '1 hour'`);
    await eventually(
      () => whys,
      (reasons) => expect(reasons).toHaveLength(1),
    );
    gate.open();
    expect(
      await dataSourceOf(app).query(
        `SELECT status, lease_expires_at > now() + interval '50 minutes' AS is_untouched FROM job_outcomes`,
      ),
    ).toEqual([{ status: 'running', is_untouched: true }]);
  });

  it.each<[string, (job: Job) => unknown]>([
    ['succeeds', () => 'mine'],
    [
      'fails',
      () => {
        throw new TransientError('mine');
      },
    ],
    [
      'hands its job back',
      async (job) => {
        await job.moveToDelayed(Date.now() + 60_000, job.token);
        throw new DelayedError();
      },
    ],
  ])(
    'an attempt that %s after its operation went to another worker, unheard, records nothing',
    async (_how, end) => {
      const gate = new Gate();
      const processor = processorOf('charges', { effect: 'natural', leaseMs: 60_000 }, async (job) => {
        await gate.pass();
        return end(job);
      });
      const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
      const ends: string[] = [];
      app.get(JobEvents).subscribe(({ kind }) => END_OF_ATTEMPT.has(kind) && ends.push(kind));
      await enqueue(app, 'charges', 'charge', {}, 'charge:1');
      await gate.arrival;
      const [theirs] = await dataSourceOf(app).query<object[][]>(`UPDATE job_outcomes SET
      fencing_token = fencing_token + 1, attempts = 2, run_id = 'another', lease_expires_at = now() + interval '1 hour'
      RETURNING *`);
      gate.open();
      await eventually(
        () => ends,
        (kinds) => expect(kinds).toHaveLength(1),
      );
      // That it was slow may be counted; nothing else of it.
      const withoutCount = (rows: object[] = []) => rows.map((row) => ({ ...row, failures: undefined }));
      const rows = await dataSourceOf(app).query<object[]>('SELECT * FROM job_outcomes');
      expect(withoutCount(rows)).toEqual(withoutCount(theirs));
      expect((await attemptKindsOf(app, 'charge:1')).filter((kind) => !LOST.has(kind))).toEqual([]);
    },
  );

  it('every attempt of an operation has a higher token than those before, also after its key was forgotten', async () => {
    const tokens: number[] = [];
    const retry = { backoff: { baseMs: 20, capMs: 20 } };
    const processor = processorOf(
      'charges',
      { effect: 'natural', retry },
      (_job, { fencingToken, attempt }) => {
        tokens.push(fencingToken);
        if (attempt < 2) throw new TransientError('again');
      },
    );
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await settled(app, 'charge:1');
    await dataSourceOf(app).query('DELETE FROM job_outcomes');
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await settled(app, 'charge:1');
    expect(tokens).toHaveLength(4);
    expect(tokens).toEqual([...new Set(tokens)].toSorted((one, other) => one - other));
  });
});

describe('fencedUpdate()', () => {
  const apps = useApps();
  const begin = async () => {
    const { app, place } = await apps.fresh(ANY_BACKEND, { queues: [] });
    const manager = dataSourceOf(app).manager;
    await manager.query(`CREATE SCHEMA "odd ""one"`);
    await manager.query(
      `CREATE TABLE "odd ""one".accounts (id integer, tenant text, by_pid integer, "my fence" bigint)`,
    );
    await manager.query(`${CREATE}; INSERT INTO accounts (id, by_pid) VALUES (1, 0), (2, 0)`);
    return { manager, place };
  };
  const update = { table: 'accounts', key: { id: 1 } };

  it('writes up to the same token again, not below it, and one row alone', async () => {
    const { manager } = await begin();
    expect(await fencedUpdate(manager, { ...update, set: { by_pid: 7 }, token: 7 })).toBe('written');
    expect(await fencedUpdate(manager, { ...update, set: { by_pid: 8 }, token: 7 })).toBe('written');
    expect(await fencedUpdate(manager, { ...update, set: { by_pid: 6 }, token: 6 })).toBe('outdated');
    expect(await manager.query('SELECT id, by_pid, fence FROM accounts ORDER BY id')).toEqual([
      { id: 1, by_pid: 8, fence: '7' },
      { id: 2, by_pid: 0, fence: null },
    ]);
    expect(await fencedUpdate(manager, { table: 'accounts', key: { id: 3 }, set: {}, token: 9 })).toBe(
      'missing',
    );
  });

  it('takes a pool of pg, several key columns, and names of any kind', async () => {
    const { manager, place } = await begin();
    await manager.query(
      `INSERT INTO "odd ""one".accounts VALUES (1, 'acme', 0, NULL), (1, 'globex', 0, NULL)`,
    );
    const pool = new Pool({ connectionString: place.databaseUrl });
    const table = 'odd "one.accounts';
    const key = { id: 1, tenant: 'acme' };
    expect(
      await fencedUpdate(pool, { table, key, set: { by_pid: 1 }, fenceColumn: 'my fence', token: 3 }),
    ).toBe('written');
    await pool.end();
    expect(await manager.query(`SELECT tenant FROM "odd ""one".accounts WHERE by_pid = 1`)).toEqual([
      { tenant: 'acme' },
    ]);
  });

  it.each([{}, { id: null }, { id: undefined }])(
    'refuses the key %j, which could name many rows',
    async (key) => {
      const { manager } = await begin();
      await expect(fencedUpdate(manager, { table: 'accounts', key, set: {}, token: 1 })).rejects.toThrow(
        /names one row/,
      );
    },
  );

  it('needs an operation or a token', async () => {
    const { manager } = await begin();
    await expect(fencedUpdate(manager, { ...update, set: {} })).rejects.toThrow(/outside of an operation/);
    await expect(fencedUpdate(manager, { ...update, set: {}, token: NaN })).rejects.toThrow(
      /not a fencing token/,
    );
  });
});
