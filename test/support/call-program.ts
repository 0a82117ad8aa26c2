import 'reflect-metadata';
import { setTimeout as pause } from 'node:timers/promises';
import { TenantContext } from 'nestjs-idempotent-jobs';
import { type CallOptions, IdempotencyService } from 'nestjs-idempotent-jobs/calls';
import { Pool } from 'pg';
import type { Place } from './place.js';
import { startApp } from './start-app.js';

/* Callers of one guarded call in a process of their own. What it does is a row of `effects`; it tells what each got. */

export interface CallScript {
  readonly place: Place;
  readonly key: string;
  readonly callers: number;
  readonly options: CallOptions;
  /** How long the call takes; -1: for ever. */
  readonly workMs: number;
}

const { place, key, callers, options, workMs } = JSON.parse(
  process.env['CALL_SCRIPT'] as string,
) as CallScript;
const effects = new Pool({ connectionString: place.databaseUrl, max: 2 });
const app = await startApp(place, { queues: [], jobs: { leaseMs: 1000, migrations: 'check' } });
process.on('disconnect', () => process.exit(0));

async function effect(): Promise<{ by: number }> {
  await effects.query('INSERT INTO effects VALUES ($1)', [process.pid]);
  process.send?.({ at: 'effect' });
  await (workMs < 0 ? new Promise(() => undefined) : pause(workMs));
  return { by: process.pid };
}

process.send?.({ at: 'ready' });
process.once('message', () => {
  const call = (): Promise<unknown> =>
    app.get(TenantContext).run('acme', () =>
      app
        .get(IdempotencyService)
        .once(key, effect, options)
        .catch((error: { code?: string }) => ({ refused: error.code })),
    );
  void Promise.all(Array.from({ length: callers }, call)).then((results) =>
    process.send?.({ at: 'answered', results }),
  );
});
