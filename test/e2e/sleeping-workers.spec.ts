import { randomUUID } from 'node:crypto';
import { currentOperation } from 'nestjs-idempotent-jobs';
import { DispatchService } from 'nestjs-idempotent-jobs/operate';
import { type RunningSimulator, startSimulator } from 'simulator';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { useThieves } from '../support/answer-thief.js';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { attemptKindsOf, bullQueue, enqueue, lettersOf, outcomeOf, settled } from '../support/ledger.js';
import { Gate, processorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf } from '../support/scenario.js';
import { useProcesses } from '../support/processes.js';

/*
 * Workers that live, but sleep: stopped by a debugger or a paused machine, with a loop that is blocked, or with a clock that
 * is wrong. Each in a process of its own.
 */

let simulator: RunningSimulator;
beforeAll(async () => {
  simulator = await startSimulator();
});
afterAll(() => simulator.stop());

describe.each(BACKENDS)('a worker that sleeps, on %s', (backend) => {
  const thieves = useThieves();
  const { start } = useProcesses();
  const apps = useApps();

  it.each([
    ['unrepeatable', 'in_doubt', 0],
    ['reconciled', 'completed', 1],
    ['keyed', 'completed', 1],
  ] as const)(
    'past its lease while the answer to its claim waits for it does not call the handler any more: %s is %s',
    async (effect, status, effects) => {
      const { app, place } = await apps.fresh(backend, { queues: ['charges'] });
      const run = randomUUID();
      const script = { effect, run, act: 'charge', leaseMs: 4000, gateway: simulator.http } as const;
      const thief = await thieves.before(place.databaseUrl);
      const zombie = await start({ ...script, place: { ...place, databaseUrl: thief.url } });
      // Only a claim tells Postgres what its job is called.
      thief.holdBack('claimed-asleep');
      await enqueue(app, 'charges', 'claimed-asleep', {}, 'charge:1');
      await eventually(
        () => thief.stolen,
        (stolen) => expect(stolen).toBe(1),
      );
      zombie.signal('SIGSTOP');
      const heir = await start({ ...script, place });
      expect(await settled(app, 'charge:1')).toMatchObject({ status });
      await heir.end();
      thief.letGo();
      zombie.signal('SIGCONT');
      // It takes one job at a time: once it has run this one, it is through with the other.
      await enqueue(app, 'charges', 'charge', {}, 'charge:2');
      expect(await settled(app, 'charge:2')).toMatchObject({ status: 'completed' });
      expect(zombie.messages.filter(({ at }) => at === 'handler')).toHaveLength(1);
      // One is that of the second operation.
      const entries = await simulator.client.ledger(run);
      expect(entries.filter(({ effect: isEffect }) => isEffect)).toHaveLength(effects + 1);
      expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status });
    },
  );

  it('in the middle of a transaction is put out of it, and another one goes on', async () => {
    const { app, place } = await apps.fresh(backend, { queues: ['charges'] });
    await dataSourceOf(app).query('CREATE TABLE reservations (by_pid integer)');
    const script = { effect: 'transactional', leaseMs: 1000, timeoutMs: 1500, place } as const;
    const zombie = await start({ ...script, act: 'write and hold' });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await zombie.reached('wrote');
    zombie.signal('SIGSTOP');
    const heir = await start({ ...script, act: 'write' });
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', result: { by: heir.pid } });
    expect(await dataSourceOf(app).query('SELECT * FROM reservations')).toEqual([{ by_pid: heir.pid }]);
  });

  it('with its loop blocked past its lease, again and again, is no crash: its attempts are told as given up', async () => {
    const { app, place } = await apps.fresh(backend, { queues: ['charges'] });
    const script = {
      place,
      effect: 'natural',
      act: 'block',
      leaseMs: 2000,
      workMs: 3000,
      times: 3,
      maxStalledCount: 50,
    } as const;
    await Promise.all([1, 2, 3, 4].map(() => start(script)));
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({
      status: 'completed',
      attempts: 4,
    });
    expect(await lettersOf(app)).toEqual([]);
    expect((await attemptKindsOf(app, 'charge:1')).toSorted()).toEqual(
      expect.arrayContaining(['surrendered', 'taken_over']),
    );
  });

  it('whose clock is set in the middle of an attempt goes on with it', async () => {
    const [gate, ofSteps] = [new Gate(), new Gate()];
    const seen: boolean[] = [];
    const { app } = await apps.fresh(backend, {
      queues: ['charges', 'orders'],
      providers: [
        processorOf('charges', { effect: 'unrepeatable' }, async (_job, { signal }) => {
          await gate.pass();
          seen.push(signal.aborted, currentOperation().signal.aborted);
          return 'done';
        }),
        processorOf('orders', { effect: 'natural' }, async (_job, { step }) => {
          await ofSteps.pass();
          return step('charge', () => 'charged', { effect: 'unrepeatable' });
        }),
      ],
    });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await enqueue(app, 'orders', 'order', {}, 'order:1');
    await Promise.all([gate.arrival, ofSteps.arrival]);
    const now = Date.now.bind(Date);
    const clock = vi.spyOn(Date, 'now').mockImplementation(() => now() + 60_000);
    try {
      gate.open();
      ofSteps.open();
      expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', result: 'done' });
      expect(await settled(app, 'order:1')).toMatchObject({
        status: 'completed',
        result: 'charged',
        attempts: 1,
      });
    } finally {
      clock.mockRestore();
    }
    expect(seen).toEqual([false, false]);
    expect(await lettersOf(app)).toEqual([]);
  });

  it('with a clock an hour ahead leaves nothing stranded once it is gone', async () => {
    const { app, place } = await apps.fresh(backend, { queues: ['charges'] });
    const script = { place, effect: 'natural', act: 'refuse', workMs: 5000, leaseMs: 2000 } as const;
    const early = await start({ ...script, clockAheadMs: 60 * 60 * 1000 });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await eventually(
      () => outcomeOf(app, 'charge:1'),
      (outcome) => expect(outcome).toMatchObject({ status: 'retrying', failures: 1 }),
    );
    await eventually(
      () => bullQueue(app, 'charges').getDelayedCount(),
      (count) => expect(count).toBe(1),
    );
    await early.end();
    await apps.beside(place, {
      queues: ['charges'],
      providers: [processorOf('charges', { effect: 'natural' }, () => 'done')],
    });
    expect(await app.get(DispatchService).redispatchUnsettled()).toMatchObject({ operations: 1 });
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', result: 'done' });
  });
});
