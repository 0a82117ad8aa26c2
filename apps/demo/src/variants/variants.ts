import { fileURLToPath } from 'node:url';
import { CREATE_PROCESSED_JOBS } from '../find-then-save/processed-job.entity.js';
import { chargeJobIdOf } from '../find-then-save/job-ids.js';
import { openIdempotentShop, PAYMENTS } from './idempotent-shop.js';
import { openPlainShop } from './plain-shop.js';
import type { Variant } from './variant.js';

/** The three ways of writing the same shop, from the most careless on. */
export const VARIANTS: readonly Variant[] = [
  {
    name: 'unsafe',
    title: '(a) @Processor with retries',
    workerProgram: fileURLToPath(new URL('../unsafe/worker.js', import.meta.url)),
    open: (settings, _env, undo) => openPlainShop(settings, undo, {}),
  },
  {
    name: 'findThenSave',
    title: '(b) find by job id, then save',
    workerProgram: fileURLToPath(new URL('../find-then-save/worker.js', import.meta.url)),
    open: (settings, _env, undo) =>
      openPlainShop(settings, undo, {
        schema: CREATE_PROCESSED_JOBS,
        jobIdOf: ({ tenantId, id }) => chargeJobIdOf({ tenantId, orderId: id }),
      }),
  },
  {
    name: 'idempotent',
    title: '(c) @IdempotentProcessor',
    workerProgram: PAYMENTS,
    open: openIdempotentShop,
  },
];
