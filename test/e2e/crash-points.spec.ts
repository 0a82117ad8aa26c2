import { randomUUID } from 'node:crypto';
import type { INestApplicationContext } from '@nestjs/common';
import type { Effect } from 'nestjs-idempotent-jobs/types';
import { type RunningSimulator, startSimulator } from 'simulator';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { useThieves } from '../support/answer-thief.js';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { enqueue, lettersOf, settled, shortenLeases } from '../support/ledger.js';
import { BACKENDS, dataSourceOf, makePlace } from '../support/scenario.js';
import { useProcesses, type TestProcess } from '../support/processes.js';
import { LONG_LEASE_MS, type WorkerScript } from '../support/script.js';
import { type Heir, heirOf } from '../support/scripted-worker.js';

/*
 * A worker is killed with SIGKILL at each moment in which an effect can get lost or doubled, and another one goes on. The
 * judge is the simulator's effect ledger, a process of its own, or, for a transaction, the table itself.
 */

const MOMENTS = [
  'claimed, effect not sent',
  'effect sent, no answer',
  'answered, outcome not committed',
  'COMMIT sent, answer not seen',
  'outcome committed, BullMQ not told',
] as const;
type Moment = (typeof MOMENTS)[number];

/** How many effects there are in the end, and what the operation says: a doubt where nobody can know. */
const ONCE = { effects: 1, status: 'completed' };
const NEVER_IN_DOUBT = { effects: 0, status: 'in_doubt' };
const ONCE_IN_DOUBT = { effects: 1, status: 'in_doubt' };
const EXPECTED: Record<Exclude<Effect, 'natural'>, Record<Moment, { effects: number; status: string }>> = {
  keyed: everywhere(ONCE),
  transactional: everywhere(ONCE),
  reconciled: everywhere(ONCE),
  unrepeatable: {
    ...everywhere(ONCE),
    'claimed, effect not sent': NEVER_IN_DOUBT,
    'effect sent, no answer': ONCE_IN_DOUBT,
    'answered, outcome not committed': ONCE_IN_DOUBT,
  },
};
const CASES = (Object.keys(EXPECTED) as (keyof typeof EXPECTED)[]).flatMap((effect) =>
  MOMENTS.map((moment) => ({ effect, moment, ...EXPECTED[effect][moment] })),
);

let simulator: RunningSimulator;
beforeAll(async () => {
  simulator = await startSimulator();
});
afterAll(() => simulator.stop());

describe.each(BACKENDS)('a worker killed at each moment of an effect, on %s', (backend) => {
  const thieves = useThieves();
  const workers = useProcesses();
  const apps = useApps();

  /** A place with an operation to come, and the worker that goes on when the others are dead. */
  const begin = async (
    effect: Effect,
    act: WorkerScript['act'],
  ): Promise<{ heir: Heir; script: WorkerScript; run: string }> => {
    const place = await makePlace(backend);
    const run = randomUUID();
    const script = { place, effect, run, act, leaseMs: LONG_LEASE_MS, gateway: simulator.http };
    return { heir: await heirOf(apps, script), script, run };
  };

  it.each(CASES)(
    '$effect, $moment: effects $effects, $status',
    async ({ effect, moment, effects, status }) => {
      const { heir, script, run } = await begin(effect, effect === 'transactional' ? 'write' : 'charge');
      const { app } = heir;
      await dataSourceOf(app).query('CREATE TABLE reservations (by_pid integer)');
      const count = (): Promise<number> => countEffects(app, effect, run);
      await killAt(moment, app, script, count);
      await shortenLeases(app);

      heir.takeOver();
      expect(await settled(app, 'charge:1')).toMatchObject({ status });
      expect(await count()).toBe(effects);
      const reasons = (await lettersOf(app)).map(({ reason }) => reason);
      expect(reasons).toEqual(status === 'in_doubt' ? ['in_doubt'] : []);
    },
  );

  it('reconciled: killed while it asks, the next delivery asks again: one effect', async () => {
    const { heir, script, run } = await begin('reconciled', 'charge');
    const { app } = heir;
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    for (const dieAt of ['after the answer', 'while it asks'] as const) {
      const victim = workers.launch({ ...script, dieAt });
      expect(await victim.exited).toBe('SIGKILL');
      await shortenLeases(app);
    }
    heir.takeOver();
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', attempts: 1 });
    expect(await countEffects(app, 'reconciled', run)).toBe(1);
    expect(await lettersOf(app)).toEqual([]);
  });

  it('steps: killed between two of them, the next attempt resumes after the first: each has one arrival', async () => {
    const { heir, script, run } = await begin('natural', 'two steps');
    const { app } = heir;
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    const victim = workers.launch({ ...script, dieAt: 'after the first step' });
    expect(await victim.exited).toBe('SIGKILL');
    await shortenLeases(app);
    heir.takeOver();
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', attempts: 2 });
    const arrivals = (await simulator.client.ledger(run)).map(({ subject, effect }) => [subject, effect]);
    expect(arrivals).toEqual([
      ['charge:1/first', true],
      ['charge:1/second', true],
    ]);
  });

  /** Starts a worker, lets it come to that moment, and kills it there; throws if it was not there. */
  async function killAt(
    moment: Moment,
    app: INestApplicationContext,
    script: WorkerScript,
    count: () => Promise<number>,
  ): Promise<void> {
    const { place, effect, run } = script;
    const isTransaction = effect === 'transactional';
    const start = async (changes: Partial<WorkerScript>): Promise<TestProcess> => {
      const worker = await workers.start({ ...script, ...changes });
      await enqueue(app, 'charges', 'charge', {}, 'charge:1');
      return worker;
    };
    switch (moment) {
      case 'claimed, effect not sent':
      case 'answered, outcome not committed':
      case 'outcome committed, BullMQ not told': {
        const dieAt = {
          'claimed, effect not sent': 'before the effect',
          'answered, outcome not committed': 'after the answer',
          'outcome committed, BullMQ not told': 'after the record',
        } as const;
        const worker = await start({ dieAt: dieAt[moment] });
        expect(await worker.exited).toBe('SIGKILL');
        return;
      }
      case 'effect sent, no answer': {
        await simulator.client.script({ run, service: 'charge', steps: ['hang'] });
        const worker = await start(isTransaction ? { act: 'write and hold' } : {});
        if (isTransaction) await worker.reached('wrote');
        else
          await eventually(count, (effects) => {
            expect(effects).toBe(1);
          });
        worker.signal('SIGKILL');
        expect(await worker.exited).toBe('SIGKILL');
        return;
      }
      case 'COMMIT sent, answer not seen': {
        const thief = await thieves.before(place.databaseUrl);
        const mark = `mark-${randomUUID()}`;
        const worker = await start({ place: { ...place, databaseUrl: thief.url }, mark });
        // The outcome is its own transaction, or, with the writes, part of one.
        thief.holdBack(isTransaction ? 'COMMIT' : mark);
        await eventually(
          () => thief.stolen,
          (stolen) => expect(stolen).toBeGreaterThan(0),
        );
        worker.signal('SIGKILL');
        expect(await worker.exited).toBe('SIGKILL');
        return;
      }
      default:
        moment satisfies never;
    }
  }
});

async function countEffects(app: INestApplicationContext, effect: Effect, run: string): Promise<number> {
  if (effect === 'transactional')
    return (await dataSourceOf(app).query<unknown[]>('SELECT * FROM reservations')).length;
  return (await simulator.client.ledger(run)).filter((entry) => entry.effect).length;
}

function everywhere<T>(expected: T): Record<Moment, T> {
  return Object.fromEntries(MOMENTS.map((moment) => [moment, expected])) as Record<Moment, T>;
}
