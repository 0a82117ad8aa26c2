import { Module } from '@nestjs/common';
import { QueuesModule } from '../queues.module.js';
import { InventoryProcessor } from './inventory.processor.js';

@Module({ imports: [QueuesModule], providers: [InventoryProcessor] })
export class InventoryModule {}
