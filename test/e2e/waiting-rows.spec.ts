import { RetentionService } from 'nestjs-idempotent-jobs/operate';
import { expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { dataSourceOf } from '../support/ledger.js';
import { processorOf } from '../support/processors.js';
import { BACKENDS } from '../support/scenario.js';

const MANY = 20_000;

/** What is due tomorrow, and what has to find out again and again that it is not due yet. */
const TOMORROW: readonly (readonly [index: string, columns: string, values: string])[] = [
  [
    'job_outcomes_dispatch_due',
    'origin, status, payload, dispatch_due_at',
    `'job', 'pending', '{}', tomorrow`,
  ],
  ['job_outcomes_expiring', 'origin, status, settled_at, expires_at', `'job', 'completed', now(), tomorrow`],
  ['job_outcomes_carried_by_job', 'origin, status, available_at', `'job', 'pending', tomorrow`],
  [
    'job_outcomes_calls_running',
    'origin, status, lease_expires_at, run_id, started_at, attempts, fencing_token',
    `'call', 'running', tomorrow, 'run', now(), 1, 7`,
  ],
  [
    'job_outcomes_calls_doubtful',
    'origin, status, doubt_since, repeatable_until',
    `'call', 'retrying', now(), tomorrow`,
  ],
];

const apps = useApps();

it.each(BACKENDS)('what is not due yet is not read by those who look for what is, on %s', async (backend) => {
  const { app, place } = await apps.fresh(backend, { queues: ['charges'] });
  const ledger = dataSourceOf(app);
  for (const [index, columns, values] of TOMORROW)
    await ledger.query(
      `INSERT INTO job_outcomes (tenant_id, operation_key, queue, job_name, job_id, fingerprint, ${columns})
       SELECT 'acme', '${index}:' || n, 'charges', 'charge', 'op-' || n, repeat('0', 64), ${values}
       FROM generate_series(1, ${MANY}) n, LATERAL (SELECT now() + interval '1 day' AS tomorrow) t`,
    );
  await ledger.query(
    `INSERT INTO dead_letters (origin, queue, job_name, job_id, reason, fingerprint, dispatch_due_at)
     SELECT 'job', 'charges', 'charge', n::text, 'manual', repeat('0', 64), now() + interval '1 day' FROM generate_series(1, ${MANY}) n`,
  );
  await ledger.query('ANALYZE job_outcomes, dead_letters');
  // From here on, what is read is counted.
  await ledger.query('SELECT pg_stat_reset()');

  const looking = await apps.beside(place, {
    queues: ['charges'],
    providers: [processorOf('charges', { effect: 'natural' }, () => undefined)],
    jobs: { dispatch: { pollMs: 50 }, recovery: { sweepMs: 100 } },
  });
  const names = [...TOMORROW.map(([index]) => index), 'dead_letters_dispatch_due'];
  const read = await eventually(
    async () => {
      await looking.get(RetentionService).prune();
      return ledger.query<{ name: string; scans: number; entries: number }[]>(
        // Of a partitioned table, by those of its partitions.
        `SELECT c.relname AS name, sum(s.idx_scan)::integer AS scans, sum(s.idx_tup_read)::integer AS entries
         FROM pg_stat_user_indexes s LEFT JOIN pg_inherits i ON i.inhrelid = s.indexrelid
         JOIN pg_class c ON c.oid = COALESCE(i.inhparent, s.indexrelid)
         WHERE c.relname = ANY ($1) GROUP BY 1 ORDER BY 1`,
        [names],
      );
    },
    (indexes) => {
      expect(indexes.map(({ name }) => name)).toEqual(names.toSorted());
      for (const { name, scans } of indexes) expect(scans, name).toBeGreaterThanOrEqual(3);
    },
  );
  expect(read.filter(({ entries }) => entries >= MANY)).toEqual([]);
});
