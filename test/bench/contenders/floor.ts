import { hash } from 'node:crypto';
import { Queue, Worker } from 'bullmq';
import { Pool } from 'pg';
import {
  chunks,
  type Contender,
  handle,
  FORGET_COMPLETED,
  type OpenContender,
  payloadOf,
  QUEUE,
  type Site,
} from '../contender.js';
import { makeLedger } from './library.js';

/*
 * The floors: workers written by hand for this one benchmark, which write to the library's table with few statements. They
 * have no tenants, no validation, no retries, no lease that is renewed, and trust every answer.
 *
 * A floor is not always the cheaper one. It sends its statements at other times than the library, and declares `keyed` also
 * where it is optimistic. In bundles it inserts rows, where the library updates those from which it was delivered.
 */

/** Claims and completes: two writes for each job. */
export const floor: Contender = {
  name: 'floor',
  open: (site, concurrency) => openFloor(site, concurrency, claimThenComplete, 1),
};

/** Looks whether the result is there, and inserts it: one write, and no claim in between. */
export const optimisticFloor: Contender = {
  name: 'floorOptimistic',
  open: (site, concurrency) => openFloor(site, concurrency, lookThenInsert, 1),
};

/** Claims and completes operations that come in bundles: half as many as there are handlers at once, at most 50. */
export const bundledFloor: Contender = {
  name: 'floorBundled',
  open: (site, concurrency) =>
    openFloor(site, concurrency, claimThenComplete, Math.min(50, Math.ceil(concurrency / 2))),
};

/** The same, with one write for each. */
export const bundledOptimisticFloor: Contender = {
  name: 'floorBundledOptimistic',
  open: (site, concurrency) =>
    openFloor(site, concurrency, lookThenInsert, Math.min(50, Math.ceil(concurrency / 2))),
};

interface Operation {
  readonly id: string;
  readonly data: unknown;
}

/** Does the work of an operation between its writes. */
type Work = (operation: Operation) => Promise<unknown>;

async function openFloor(
  site: Site,
  concurrency: number,
  writes: (pool: Pool) => Work,
  size: number,
): Promise<OpenContender> {
  await makeLedger(site);
  const { connection, prefix } = site;
  const pool = new Pool({ connectionString: site.databaseUrl, max: CONNECTIONS, options: SESSION });
  const work = writes(pool);
  const queue = new Queue(QUEUE, { connection, prefix, defaultJobOptions: FORGET_COMPLETED });
  let onDone = (): void => undefined;
  const worker = new Worker(
    QUEUE,
    async (job) => {
      const operations = job.data as readonly Operation[];
      const done = operations.map((operation) => work(operation).then(() => onDone()));
      await Promise.all(done);
    },
    { connection, prefix, concurrency: Math.ceil(concurrency / size), autorun: false },
  );
  await queue.waitUntilReady();
  return {
    async fill(jobs) {
      const bundles = [...chunks(jobs, size)].map((numbers) => ({
        name: 'charge',
        data: numbers.map((number) => ({ id: `charge:${number}`, data: payloadOf(number) })),
        opts: { jobId: `op-${hash('sha256', `${numbers[0]}`, 'base64url')}` },
      }));
      for (const chunk of chunks(bundles.length, Math.ceil(1000 / size)))
        await queue.addBulk(chunk.map((index) => bundles[index] as (typeof bundles)[number]));
    },
    drain(countdown) {
      onDone = () => countdown.count();
      worker.run().catch((error: unknown) => countdown.fail(error));
      return countdown.over;
    },
    async close() {
      await worker.close();
      await queue.close();
      await pool.end();
    },
  };
}

/** As the library's own sessions: a plan that was made while the table was empty must not scan it later. */
const SESSION = '-c enable_seqscan=off -c jit=off';

/** The most statements of one kind that are under way. */
const MAX_IN_FLIGHT = 2;

/** A floor has two kinds of statements at most. None of them waits for a connection. */
const CONNECTIONS = 2 * MAX_IN_FLIGHT;

/** One for all claims of a statement. */
const TOKEN = `(EXTRACT(EPOCH FROM statement_timestamp()) * 1000)::bigint`;

/** INSERT of claims, of which each row is `column, column … FROM unnest(…)`; the parameters begin at number `first`. */
const claims = (first: number): string => `
  INSERT INTO job_outcomes (tenant_id, operation_key, origin, queue, job_name, job_id, fingerprint, status, effect, fencing_token,
    run_id, lease_expires_at, attempts, started_at, repeatable_until)
  SELECT tenant_id, operation_key, 'job', '${QUEUE}', 'charge', operation_key, fingerprint, 'running', 'keyed', ${TOKEN},
    'bench', clock_timestamp() + interval '30 s', 1, clock_timestamp(), clock_timestamp() + interval '1 day'
  FROM (SELECT 'acme' AS tenant_id, * FROM unnest((SELECT $${first}::text[]), (SELECT $${first + 1}::text[])) AS d (operation_key, fingerprint)) d
  ORDER BY operation_key
  ON CONFLICT (tenant_id, operation_key) DO NOTHING
  RETURNING 1`;

/** UPDATE that completes what was claimed. */
const completions = (first: number): string => `
  UPDATE job_outcomes o SET status = 'completed', result = a.result::json, lease_expires_at = NULL, payload = NULL, error = NULL,
    dispatch_due_at = NULL, settled_at = clock_timestamp(), expires_at = clock_timestamp() + interval '7 days'
  FROM unnest((SELECT $${first}::text[]), (SELECT $${first + 1}::bigint[]), (SELECT $${first + 2}::text[])) AS a (operation_key, token, result)
  WHERE o.tenant_id = 'acme' AND o.operation_key = a.operation_key AND o.fencing_token = a.token AND o.status = 'running'
  RETURNING 1`;

const EXCHANGE = `WITH claimed AS (${claims(1)}), completed AS (${completions(3)})
  SELECT (SELECT count(*) FROM claimed)::integer + (SELECT count(*) FROM completed)::integer AS done, ${TOKEN}::text AS token`;

const LOOK = `SELECT count(*)::integer AS done FROM unnest((SELECT $1::text[])) AS a (operation_key)
  JOIN job_outcomes o ON o.tenant_id = 'acme' AND o.operation_key = a.operation_key`;

const INSERT = `WITH made AS (
  INSERT INTO job_outcomes (tenant_id, operation_key, origin, queue, job_name, job_id, fingerprint, status, effect, fencing_token,
    attempts, started_at, repeatable_until, settled_at, expires_at, result)
  SELECT 'acme', operation_key, 'job', '${QUEUE}', 'charge', operation_key, fingerprint, 'completed', 'keyed', ${TOKEN},
    1, clock_timestamp(), clock_timestamp() + interval '1 day', clock_timestamp(), clock_timestamp() + interval '7 days', result::json
  FROM unnest((SELECT $1::text[]), (SELECT $2::text[]), (SELECT $3::text[])) AS d (operation_key, fingerprint, result)
  ORDER BY operation_key
  ON CONFLICT (tenant_id, operation_key) DO NOTHING
  RETURNING 1
) SELECT count(*)::integer AS done FROM made`;

function claimThenComplete(pool: Pool): Work {
  type Begun = { key: string; fingerprint: string };
  type Ended = { key: string; token: string; result: string };
  const exchange = new Batches<Begun | Ended>((batch) => {
    const begun = batch.filter((item): item is Begun => 'fingerprint' in item);
    const ended = batch.filter((item): item is Ended => 'token' in item);
    return ask(pool, 'exchange', EXCHANGE, batch.length, [
      textArray(begun.map(({ key }) => key)),
      textArray(begun.map(({ fingerprint }) => fingerprint)),
      textArray(ended.map(({ key }) => key)),
      `{${ended.map(({ token }) => token).join(',')}}`,
      textArray(ended.map(({ result }) => result)),
    ]);
  });
  return async ({ id, data }) => {
    const token = await exchange.submit({ key: id, fingerprint: fingerprintOf(data) });
    await exchange.submit({ key: id, token, result: JSON.stringify(await handle()) });
  };
}

function lookThenInsert(pool: Pool): Work {
  const looks = new Batches<string>((batch) => ask(pool, 'look', LOOK, 0, [textArray(batch)]));
  const inserts = new Batches<{ key: string; fingerprint: string; result: string }>((batch) =>
    ask(pool, 'insert', INSERT, batch.length, [
      textArray(batch.map(({ key }) => key)),
      textArray(batch.map(({ fingerprint }) => fingerprint)),
      textArray(batch.map(({ result }) => result)),
    ]),
  );
  return async ({ id, data }) => {
    await looks.submit(id);
    const result = JSON.stringify(await handle());
    await inserts.submit({ key: id, fingerprint: fingerprintOf(data), result });
  };
}

/**
 * The token of what was claimed. Everything goes right in a floor: another number of rows than expected is a mistake of the
 * benchmark.
 */
async function ask(
  pool: Pool,
  name: string,
  text: string,
  expected: number,
  values: unknown[],
): Promise<string> {
  const { rows } = await pool.query<{ done: number; token?: string }>({ name, text, values });
  if (rows[0]?.done !== expected) throw new Error(`${name}: ${rows[0]?.done} rows instead of ${expected}`);
  return rows[0].token ?? '';
}

function fingerprintOf(data: unknown): string {
  return hash('sha256', JSON.stringify(data), 'hex');
}

/** An array of plain texts in the form that Postgres reads. */
function textArray(values: readonly string[]): string {
  return `{${values.map((value) => `"${value.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`).join(',')}}`;
}

/** Sends what comes in one turn of the event loop, or while two statements are under way, in one statement. */
class Batches<Item> {
  #waiting: { item: Item; resolve: (token: string) => void; reject: (error: unknown) => void }[] = [];
  #inFlight = 0;
  #isCalled = false;

  constructor(private readonly send: (items: Item[]) => Promise<string>) {}

  submit(item: Item): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ item, resolve, reject });
      this.#call();
    });
  }

  #call(): void {
    if (this.#isCalled || this.#inFlight >= MAX_IN_FLIGHT || this.#waiting.length === 0) return;
    this.#isCalled = true;
    setImmediate(() => {
      this.#isCalled = false;
      this.#sendWaiting();
    });
  }

  #sendWaiting(): void {
    const batch = this.#waiting;
    this.#waiting = [];
    this.#inFlight += 1;
    void this.send(batch.map(({ item }) => item))
      .then(
        (token) => batch.forEach(({ resolve }) => resolve(token)),
        (error: unknown) => batch.forEach(({ reject }) => reject(error)),
      )
      .finally(() => {
        this.#inFlight -= 1;
        this.#call();
      });
  }
}
