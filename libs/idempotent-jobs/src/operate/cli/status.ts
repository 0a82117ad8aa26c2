import type { Database } from '../../ledger/postgres/database.js';
import { inOperations, readBundled } from '../../bullmq/bundled-operations.js';
import { statement } from '../../ledger/postgres/statement.js';
import type { QueueDepth } from '../../bullmq/queue-contents.js';
import { command, text } from './command.js';
import { depthsInRedis } from './depths-in-redis.js';
import { type Columns, listed } from './render.js';
import { refuseUnknownQueue } from './services.js';

/** The state of every queue, by BullMQ and by the ledger. */
export const status = command({
  name: 'status',
  summary: 'show every queue: what waits in BullMQ, what is unsettled in the ledger, what died',
  options: { queue: text('queue', '<name>', 'only this queue') },
  async run({ given: { queue }, database, env, prefix }) {
    const all = await database.read<LedgerStatus>(LEDGER_STATUS.with({}));
    const queues = queue === undefined ? all : all.filter((one) => one.queue === queue);
    if (queues.length === 0) await refuseUnknownQueue(database, queue);
    const names = queues.map((one) => one.queue);
    const { REDIS_URL: redisUrl } = env;
    const depths = await (redisUrl === undefined
      ? depthsInPostgres(names, database)
      : inRedis(names, redisUrl, prefix));
    const bundled = await readBundled(database, names);
    const rows = queues.map((one) => {
      const depth = depths.of.get(one.queue);
      return { ...one, bullmq: depth === undefined ? null : inOperations(depth, bundled.get(one.queue)) };
    });
    const json = { bullmq: depths.source, queues: rows };
    const { lines } = listed(json, rows, COLUMNS, 'The ledger knows no queue yet.');
    const hint = rows.length > 0 && depths.source === 'none' ? ['', NO_DEPTHS] : [];
    return { exitCode: 0, json, lines: [...lines, ...hint] };
  },
});

const NO_DEPTHS =
  'REDIS_URL is not set, and BullMQ has no schema "bullmq" in DATABASE_URL: the depths of queues are not known.';

const COLUMNS: Columns<LedgerStatus & { readonly bullmq: QueueDepth | null }> = {
  queue: ({ queue }) => queue,
  waiting: ({ bullmq }) => bullmq?.waiting,
  active: ({ bullmq }) => bullmq?.active,
  delayed: ({ bullmq }) => bullmq?.delayed,
  failed: ({ bullmq }) => bullmq?.failed,
  pending: ({ pending }) => pending,
  retrying: ({ retrying }) => retrying,
  running: ({ running }) => running,
  'in doubt': ({ inDoubt }) => inDoubt,
  letters: ({ openLetters }) => openLetters,
  'oldest letter': ({ oldestLetterAt }) => oldestLetterAt,
};

/** The state of a queue by the ledger. */
interface LedgerStatus {
  readonly queue: string;
  /** Undefined for a queue that no application has registered. */
  readonly deadLetterQueue: string | undefined;
  /** Operations that the ledger delivers and that are not settled. */
  readonly pending: number;
  readonly retrying: number;
  readonly running: number;
  readonly inDoubt: number;
  readonly openLetters: number;
  readonly oldestLetterAt: Date | undefined;
}

/**
 * All queues that the ledger knows of. Each number comes from a partial index: settled operations, however many, are not
 * read.
 */
const LEDGER_STATUS = statement(
  'ledger_status',
  `
WITH open AS (
  SELECT queue,
    count(*) FILTER (WHERE status = 'pending') AS pending,
    count(*) FILTER (WHERE status = 'retrying') AS retrying,
    count(*) FILTER (WHERE status = 'running') AS running
  FROM {schema}.job_outcomes WHERE dispatch_due_at IS NOT NULL GROUP BY queue
), doubted AS (
  SELECT queue, count(*) AS in_doubt FROM {schema}.job_outcomes WHERE status = 'in_doubt' GROUP BY queue
), letters AS (
  SELECT queue, count(*) AS open_letters, min(created_at) AS oldest_letter_at
  FROM {schema}.dead_letters WHERE resolved_at IS NULL GROUP BY queue
), known AS (
  SELECT queue, dead_letter_queue FROM {schema}.job_queues
)
SELECT queue, dead_letter_queue,
  COALESCE(pending, 0)::integer AS pending, COALESCE(retrying, 0)::integer AS retrying,
  COALESCE(running, 0)::integer AS running, COALESCE(in_doubt, 0)::integer AS in_doubt,
  COALESCE(open_letters, 0)::integer AS open_letters, oldest_letter_at
FROM known FULL JOIN open USING (queue) FULL JOIN doubted USING (queue) FULL JOIN letters USING (queue)
ORDER BY queue
`,
);

/** The depths of queues by name, and the backend that reported them. */
interface QueueDepths {
  readonly source: 'redis' | 'postgres' | 'none';
  readonly of: ReadonlyMap<string, QueueDepth>;
}

/** The default table of BullMQ's Postgres backend. */
const BULLMQ_TABLE = 'bullmq.job';

async function inRedis(
  names: readonly string[],
  redisUrl: string,
  prefix: string | undefined,
): Promise<QueueDepths> {
  return { source: 'redis', of: await depthsInRedis(names, redisUrl, prefix) };
}

async function depthsInPostgres(names: readonly string[], { dataSource }: Database): Promise<QueueDepths> {
  const [found] = await dataSource.query<[{ present: boolean }]>(
    'SELECT to_regclass($1) IS NOT NULL AS present',
    [BULLMQ_TABLE],
  );
  if (!found.present) return { source: 'none', of: new Map() };
  const rows = await dataSource.query<(QueueDepth & { queue: string })[]>(
    `SELECT asked.queue,
       count(*) FILTER (WHERE state = 'waiting')::integer AS waiting,
       count(*) FILTER (WHERE state = 'active')::integer AS active,
       count(*) FILTER (WHERE state = 'delayed')::integer AS delayed,
       count(*) FILTER (WHERE state = 'failed')::integer AS failed
     FROM unnest($1::text[]) AS asked (queue)
     LEFT JOIN ${BULLMQ_TABLE} j ON j.queue = asked.queue AND state IN ('waiting', 'active', 'delayed', 'failed')
     GROUP BY asked.queue`,
    [names],
  );
  return { source: 'postgres', of: new Map(rows.map(({ queue, ...depth }) => [queue, depth])) };
}
