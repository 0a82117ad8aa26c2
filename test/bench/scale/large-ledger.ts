import { median } from '../comparison.js';
import type { Servers } from '../servers.js';
import { type Drained, drain } from './drain.js';
import { alone, compared, type Figure, type Question } from './question.js';
import { openScaleApp, type ScaleApp, type ScaleAppOptions, TENANT_SQL } from './scale-app.js';
import { copyUntil } from './settled-rows.js';

/** Jobs of a turn. */
const JOBS = 4000;
/** Jobs of a turn that are done one after the other. */
const SINGLE_JOBS = 1000;
const ROUNDS = 3;
/** Rows of the ledger that it is compared with: as many as replays need. */
const FEW = 10_000;

/** Claims and replays where the ledger has many settled rows, in turns with a ledger that has few. */
export const largeLedger: Question = {
  name: 'ledger',
  asks: 'what do claims and replays cost where the ledger has many settled rows?',
  sizes: { usual: 1_000_000, full: 10_000_000 },
  async answer(servers, size) {
    const small = await openLedger(servers, FEW);
    const large = await openLedger(servers, size);
    const kinds = ['claim', 'replay'] as const;
    const figures: Figure[] = [];
    for (const kind of kinds) {
      const turns = await takeTurns(servers, kind, [small, large]);
      figures.push(...figuresOf(kind, turns[0] as Turns, turns[1] as Turns));
    }
    figures.push(alone('table and indexes', 'bytes/row', await bytesPerRow(large)));
    await small.app.app.close();
    await large.app.app.close();
    return figures;
  },
};

export interface Ledger {
  readonly app: ScaleApp;
  readonly rows: number;
  /** The number of the next operation that the ledger does not have. */
  next: number;
}

export interface Turns {
  readonly many: Drained[];
  readonly single: Drained[];
}

/** An application whose ledger has so many settled rows. */
export async function openLedger(
  servers: Servers,
  rows: number,
  options: Pick<ScaleAppOptions, 'partitions' | 'tenants'> = {},
): Promise<Ledger> {
  const site = await servers.makeSite(servers.backends[0] as 'redis' | 'postgres');
  const app = await openScaleApp(site, { ...options, concurrency: 50 });
  await drain(servers, app, { jobs: 1, concurrency: 1, fill: () => app.enqueue([0], 'queue') });
  await copyUntil(site, rows, { tenant_id: TENANT_SQL('number', options.tenants ?? 1) });
  return { app, rows, next: rows + 1 };
}

async function bytesPerRow({ app: { dataSource } }: Ledger): Promise<number> {
  const [row] = await dataSource.query<{ bytes: number }[]>(
    `SELECT (pg_total_relation_size('job_outcomes') / count(*))::integer AS bytes FROM job_outcomes`,
  );
  return row?.bytes ?? NaN;
}

/** What each of these ledgers has shown, in turns. */
export async function takeTurns(
  servers: Servers,
  kind: 'claim' | 'replay',
  ledgers: readonly Ledger[],
): Promise<Turns[]> {
  const all = ledgers.map((): Turns => ({ many: [], single: [] }));
  for (let round = 0; round < ROUNDS; round += 1)
    for (const [index, ledger] of ledgers.entries()) {
      const turn = (jobs: number, concurrency: number): Promise<Drained> =>
        drain(servers, ledger.app, {
          jobs,
          concurrency,
          fill: () => ledger.app.enqueue(numbersFor(kind, ledger, jobs), 'queue'),
        });
      all[index]?.many.push(await turn(JOBS, 50));
      all[index]?.single.push(await turn(SINGLE_JOBS, 1));
    }
  return all;
}

/** Of operations that the ledger does not have, or of some of those that it has, from all over. */
function numbersFor(kind: 'claim' | 'replay', ledger: Ledger, jobs: number): number[] {
  const first = ledger.next;
  if (kind === 'claim') ledger.next += jobs;
  const stride = Math.floor(ledger.rows / jobs);
  return Array.from({ length: jobs }, (_, index) => (kind === 'claim' ? first + index : index * stride));
}

function figuresOf(kind: string, few: Turns, many: Turns): Figure[] {
  const of = `${FEW.toLocaleString('en')} rows`;
  const least = (turns: Turns, server: 'node' | 'postgres'): number =>
    Math.min(...turns.many.map(({ cpu }) => cpu[server] ?? NaN));
  const p50 = (turns: Turns): number => median(turns.single.map(({ p50Ms }) => p50Ms));
  return [
    compared(`${kind}: one at a time, p50`, 'ms', p50(many), p50(few), of),
    compared(`${kind}: Node's CPU`, 'µs/op', least(many, 'node'), least(few, 'node'), of),
    compared(`${kind}: Postgres's CPU`, 'µs/op', least(many, 'postgres'), least(few, 'postgres'), of),
  ];
}
