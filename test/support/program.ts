import 'reflect-metadata';
import { setTimeout as pause } from 'node:timers/promises';
import { getDataSourceToken } from '@nestjs/typeorm';
import { getIdempotentQueueToken, type IdempotentQueue, TenantContext } from 'nestjs-idempotent-jobs';
import { IdempotencyService } from 'nestjs-idempotent-jobs/calls';
import { DeadLetterService } from 'nestjs-idempotent-jobs/dead-letters';
import { Pool } from 'pg';
import type { DataSource } from 'typeorm';
import { processorOf } from './processors.js';
import type { CallerScript, ProducerScript, RedriverScript, Script } from './script.js';
import { ScriptedWorker } from './scripted-worker.js';
import { startApp } from './start-app.js';

/*
 * The program of the processes that tests start beside themselves, to kill, stop and continue them. What it does is in
 * its script, and what happens it tells its parent.
 */

async function call({ place, key, callers, options, workMs, leaseMs }: CallerScript): Promise<void> {
  const effects = new Pool({ connectionString: place.databaseUrl, max: 2 });
  const app = await startApp(place, { queues: [], jobs: { leaseMs, migrations: 'check' } });
  const effect = async (): Promise<{ by: number }> => {
    await effects.query('INSERT INTO effects VALUES ($1)', [process.pid]);
    process.send?.({ at: 'effect' });
    await (workMs < 0 ? new Promise(() => undefined) : pause(workMs));
    return { by: process.pid };
  };
  const once = (): Promise<unknown> =>
    app.get(TenantContext).run('acme', () =>
      app
        .get(IdempotencyService)
        .once(key, effect, options)
        .catch((error: { code?: string }) => ({ refused: error.code })),
    );
  process.once('message', () => {
    void Promise.all(Array.from({ length: callers }, once)).then((results) =>
      process.send?.({ at: 'answered', results }),
    );
  });
}

/** With a small heap, whoever holds all payloads at once dies. */
async function produce({ place, operations, payloadLength }: ProducerScript): Promise<void> {
  const app = await startApp(place, { queues: ['charges'], jobs: { dispatch: { enabled: false } } });
  const queue = app.get<IdempotentQueue>(getIdempotentQueueToken('charges'));
  const requests = Array.from({ length: operations }, (_, index) => ({
    name: 'charge',
    get payload() {
      return { text: `${index}`.padEnd(payloadLength, 'x') };
    },
    operationKey: `charge:${index}`,
    tenantId: 'acme',
  }));
  await app
    .get<DataSource>(getDataSourceToken())
    .transaction((transaction) => queue.enqueueMany(requests, { transaction }));
  await app.close();
  process.disconnect();
}

async function redrive({ place }: RedriverScript): Promise<void> {
  const app = await startApp(place, {
    queues: ['charges'],
    providers: [
      processorOf('charges', { effect: 'transactional' }, (_job, { operationKey, transaction }) =>
        transaction.query('INSERT INTO runs VALUES ($1, $2)', [operationKey, process.pid]),
      ),
    ],
  });
  const { redriveId } = await app
    .get(DeadLetterService)
    .redriveMany({ queue: 'charges' }, { actor: 'ada', note: 'begun', ratePerSecond: 8, canary: 1 });
  process.send?.({ at: 'begun', redriveId });
}

async function follow(script: Script): Promise<void> {
  switch (script.role) {
    case 'caller':
      return call(script);
    case 'producer':
      return produce(script);
    case 'redriver':
      return redrive(script);
    default:
      return new ScriptedWorker(script, (message) => process.send?.(message)).start();
  }
}

const script = JSON.parse(process.env['SCRIPT'] as string) as Script;
// Whatever becomes of the tests, and whenever: nothing is left running.
process.on('disconnect', () => process.exit(0));
void follow(script).then(() => {
  if (script.role !== 'producer') process.send?.({ at: 'ready' });
});
