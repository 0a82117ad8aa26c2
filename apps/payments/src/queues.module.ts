import { Module } from '@nestjs/common';
import { IdempotentJobsModule } from 'nestjs-idempotent-jobs';
import { CHARGES } from './charges/charge.jobs.js';
import { INVENTORY } from './inventory/inventory.jobs.js';
import { RECEIPTS } from './receipts/receipt.jobs.js';

const queues = IdempotentJobsModule.registerQueue(INVENTORY, CHARGES, RECEIPTS);

/** The three queues, registered once: each step of an order enqueues the next one. */
@Module({ imports: [queues], exports: [queues] })
export class QueuesModule {}
