import { fileURLToPath } from 'node:url';
import { CREATE_PROCESSED_JOBS } from '../find-then-save/processed-job.entity.js';
import { chargeJobIdOf } from '../find-then-save/job-ids.js';
import { openIdempotentShop, PAYMENTS } from './idempotent-shop.js';
import { openPlainShop } from './plain-shop.js';
import type { Variant } from './variant.js';

/**
 * The ways of writing the same shop, from the most careless on. The first two send no keys, so it is all the same whether
 * their gateway honours any.
 */
export const VARIANTS: readonly Variant[] = [
  {
    name: 'unsafe',
    title: '(a) @Processor with retries',
    promised: 'nothing',
    honoursKeys: true,
    workerProgram: fileURLToPath(new URL('../unsafe/worker.js', import.meta.url)),
    open: (settings, _env, undo) => openPlainShop(settings, undo, {}),
  },
  {
    name: 'findThenSave',
    title: '(b) find by job id, then save',
    promised: 'nothing',
    honoursKeys: true,
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
    promised: 'once',
    honoursKeys: true,
    workerProgram: PAYMENTS,
    open: openIdempotentShop,
  },
  {
    name: 'reconciled',
    title: '(d) reconciled, without keys',
    promised: 'known',
    honoursKeys: false,
    env: { CHARGE_BY: 'look-up', MAIL_BY: 'look-up' },
    workerProgram: PAYMENTS,
    open: openIdempotentShop,
  },
];
