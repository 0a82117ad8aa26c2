import { type Ledger, openLedger, takeTurns, type Turns } from './large-ledger.js';
import { compared, type Question } from './question.js';

const COUNTS = [8, 16] as const;
const TENANTS = 1000;

/** New operations of many tenants on a ledger in partitions, in turns with an ordinary one that has the same rows. */
export const partitions: Question = {
  name: 'partitions',
  asks: 'what does a claim and its record cost Postgres where the ledger has partitions?',
  sizes: { usual: 200_000, full: 1_000_000 },
  async answer(servers, size) {
    const ledgers: Ledger[] = [];
    for (const count of [undefined, ...COUNTS]) {
      const options = { tenants: TENANTS, ...(count !== undefined && { partitions: count }) };
      ledgers.push(await openLedger(servers, size, options));
    }
    const [ordinary, ...partitioned] = await takeTurns(servers, 'claim', ledgers);
    for (const { app } of ledgers) await app.app.close();
    return partitioned.flatMap((turns, index) =>
      (['single', 'many'] as const).map((kind) => {
        const what = kind === 'single' ? 'one operation at a time' : '50 operations at a time';
        const cost = leastUs(turns, kind);
        const base = leastUs(ordinary as Turns, kind);
        return compared(
          `${COUNTS[index]} partitions, ${what}: Postgres's CPU`,
          'µs/op',
          cost,
          base,
          'one table',
        );
      }),
    );
  },
};

function leastUs(turns: Turns, kind: keyof Turns): number {
  return Math.min(...turns[kind].map(({ cpu }) => cpu.postgres ?? NaN));
}
