import { randomUUID } from 'node:crypto';
import type { INestApplicationContext } from '@nestjs/common';
import type { Effect } from 'nestjs-idempotent-jobs/types';
import { type LedgerEntry, type RunningSimulator, startSimulator } from 'simulator';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import {
  attemptKindsOf,
  bullQueue,
  enqueue,
  lettersOf,
  outcomeOf,
  settled,
  shortenLeases,
} from '../support/ledger.js';
import { BACKENDS, dataSourceOf, makePlace } from '../support/scenario.js';
import { useProcesses } from '../support/processes.js';
import { LONG_LEASE_MS, type WorkerScript } from '../support/script.js';
import { type Heir, heirOf } from '../support/scripted-worker.js';

/*
 * Real processes, real signals. The judge is the simulator's effect ledger: a process of its own that no fault touches.
 */

let simulator: RunningSimulator;
beforeAll(async () => {
  simulator = await startSimulator();
});
afterAll(() => simulator.stop());

describe.each(BACKENDS)('workers that crash or stop, on %s', (backend) => {
  const apps = useApps();
  const workers = useProcesses();

  /** A place, what its workers do, and the one that goes on in the test's own process when the others are dead. */
  const begin = async (
    effect: Effect,
    act: WorkerScript['act'] = 'charge',
  ): Promise<{ heir: Heir; app: INestApplicationContext; script: WorkerScript; run: string }> => {
    const place = await makePlace(backend);
    const run = randomUUID();
    const script = { place, effect, run, act, leaseMs: LONG_LEASE_MS, gateway: simulator.http };
    const heir = await heirOf(apps, script);
    return { heir, app: heir.app, script, run };
  };
  const charges = async (run: string): Promise<LedgerEntry[]> =>
    (await simulator.client.ledger(run)).filter((entry) => entry.service === 'charge');
  const effects = async (run: string): Promise<number> =>
    (await charges(run)).filter((entry) => entry.effect).length;

  it('unrepeatable: killed before the claim, nothing was spent: another worker runs it as attempt 1', async () => {
    const { heir, app, script, run } = await begin('unrepeatable');
    const victim = await workers.start({ ...script, act: 'die before the claim' });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await victim.exited).toBe('SIGKILL');
    expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'pending', attempts: 0 });

    heir.takeOver();
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', attempts: 1 });
    expect(await effects(run)).toBe(1);
  });

  it.each<[Effect, string]>([
    ['keyed', 'completed'],
    ['unrepeatable', 'in_doubt'],
  ])(
    '%s: killed between effect and record, there is one effect and the operation ends %s',
    async (effect, status) => {
      const { heir, app, script, run } = await begin(effect);
      await simulator.client.script({ run, service: 'charge', steps: ['hang'] });
      const victim = await workers.start(script);
      await enqueue(app, 'charges', 'charge', {}, 'charge:1');
      // The effect has landed and its answer is on the way that never ends: the moment of the crash.
      await eventually(
        () => effects(run),
        (count) => expect(count).toBe(1),
      );
      victim.signal('SIGKILL');
      expect(await victim.exited).toBe('SIGKILL');
      await shortenLeases(app);

      heir.takeOver();
      expect(await settled(app, 'charge:1')).toMatchObject({ status });
      expect(await effects(run)).toBe(1);
      expect(await attemptKindsOf(app, 'charge:1')).toEqual(['taken_over']);
      if (effect === 'keyed') expect((await charges(run)).map((entry) => entry.attempt)).toEqual([1, 2]);
      else expect(await lettersOf(app)).toMatchObject([{ reason: 'in_doubt', operation_key: 'charge:1' }]);
    },
  );

  it('transactional: killed before COMMIT, nothing of the attempt remains and the next one writes once', async () => {
    const { heir, app, script } = await begin('transactional', 'write');
    await dataSourceOf(app).query('CREATE TABLE reservations (by_pid integer)');
    const victim = await workers.start({ ...script, act: 'write and hold' });
    await enqueue(app, 'charges', 'charge', {}, 'reserve:1');
    await victim.reached('wrote');
    victim.signal('SIGKILL');
    expect(await victim.exited).toBe('SIGKILL');

    heir.takeOver();
    // Nothing is left of the first attempt, not even its start: this one is attempt 1 again.
    expect(await settled(app, 'reserve:1')).toMatchObject({
      status: 'completed',
      attempts: 1,
      result: { by: process.pid },
    });
    const rows = await dataSourceOf(app).query('SELECT by_pid FROM reservations');
    expect(rows).toEqual([{ by_pid: process.pid }]);
  });

  it.each<[Effect, string]>([
    ['keyed', 'completed'],
    ['unrepeatable', 'in_doubt'],
  ])(
    '%s: a zombie that wakes after its lease went to another worker writes nothing (%s)',
    async (effect, status) => {
      const { heir, app, script, run } = await begin(effect);
      await simulator.client.script({ run, service: 'charge', steps: ['slow'], slowMs: 400 });
      const zombie = await workers.start({ ...script, leaseMs: 3000 });
      await enqueue(app, 'charges', 'charge', {}, 'charge:1');
      const { fencingToken } = await zombie.reached('handler');
      await eventually(
        () => effects(run),
        (count) => expect(count).toBe(1),
      );
      zombie.signal('SIGSTOP');

      heir.takeOver();
      expect(await settled(app, 'charge:1')).toMatchObject({ status });
      const [before] = await dataSourceOf(app).query<{ fencing_token: string }[]>(
        'SELECT fencing_token FROM job_outcomes',
      );
      expect(Number(before?.fencing_token)).toBeGreaterThan(fencingToken as number);

      zombie.signal('SIGCONT');
      // It has its answer now, and tries to record it.
      await zombie.reached('answered');
      await eventually(
        () => bullQueue(app, 'charges').getActiveCount(),
        (active) => expect(active).toBe(0),
      );
      const [after] = await dataSourceOf(app).query<{ status: string; fencing_token: string }[]>(
        'SELECT status, fencing_token FROM job_outcomes',
      );
      expect(after).toEqual({ status, fencing_token: before?.fencing_token });
      expect(await effects(run)).toBe(1);
    },
  );

  it('a job that kills its workers is buried as a crash loop, and other jobs go on', async () => {
    const { heir, app, script } = await begin('keyed');
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    for (let death = 1; death <= 2; death += 1) {
      // Its job is waiting: it may be dead before it could say that it is up.
      const victim = workers.launch({ ...script, act: 'die' });
      expect(await victim.exited).toBe('SIGKILL');
      await shortenLeases(app);
    }
    heir.takeOver();
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'dead' });
    expect(await lettersOf(app)).toMatchObject([{ reason: 'crash_loop', operation_key: 'charge:1' }]);
    await enqueue(app, 'charges', 'charge', {}, 'charge:2');
    expect(await settled(app, 'charge:2')).toMatchObject({ status: 'completed' });
    await eventually(
      () => bullQueue(app, 'charges-dlq').getJobCounts('waiting'),
      (counts) => expect(counts).toMatchObject({ waiting: 1 }),
    );
  });
});
