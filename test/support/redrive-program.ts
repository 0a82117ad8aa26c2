import 'reflect-metadata';
import { DeadLetterService } from 'nestjs-idempotent-jobs/dead-letters';
import type { Place } from './place.js';
import { processorOf } from './processors.js';
import { startApp } from './start-app.js';

/* A process that redrives all letters of a queue, slowly enough to be killed in the middle. */

const place = JSON.parse(process.env['REDRIVE_PLACE'] as string) as Place;

const app = await startApp(place, {
  queues: ['charges'],
  providers: [
    processorOf('charges', { effect: 'transactional' }, (_job, operation) =>
      operation.transaction.query('INSERT INTO runs VALUES ($1, $2)', [operation.operationKey, process.pid]),
    ),
  ],
});
process.on('disconnect', () => process.exit(0));
const { redriveId } = await app
  .get(DeadLetterService)
  .redriveMany({ queue: 'charges' }, { actor: 'ada', note: 'begun', ratePerSecond: 20, canary: 1 });
process.send?.({ redriveId });
