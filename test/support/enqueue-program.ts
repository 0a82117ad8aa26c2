import 'reflect-metadata';
import { idempotentQueue } from './ledger.js';
import type { Place } from './place.js';
import { dataSourceOf } from './data-source.js';
import { startApp } from './start-app.js';

/*
 * Enqueues more than its heap could hold, in one transaction, each payload made when it is asked for. Run it with
 * --max-old-space-size: whoever holds all of them dies.
 */

export interface EnqueueScript {
  readonly place: Place;
  readonly operations: number;
  readonly payloadLength: number;
}

const { place, operations, payloadLength } = JSON.parse(
  process.env['ENQUEUE_SCRIPT'] as string,
) as EnqueueScript;
const app = await startApp(place, { queues: ['charges'], jobs: { dispatch: { enabled: false } } });
const requests = Array.from({ length: operations }, (_, index) => ({
  name: 'charge',
  get payload() {
    return { text: `${index}`.padEnd(payloadLength, 'x') };
  },
  operationKey: `charge:${index}`,
  tenantId: 'acme',
}));
await dataSourceOf(app).transaction((transaction) =>
  idempotentQueue(app, 'charges').enqueueMany(requests, { transaction }),
);
await app.close();
