import { Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { Order } from '../orders/order.entity.js';
import { QueuesModule } from '../queues.module.js';
import { Mailer } from './mailer.js';
import { ReceiptProcessor } from './receipt.processor.js';

@Module({
  imports: [QueuesModule, TypeOrmModule.forFeature([Order])],
  providers: [ReceiptProcessor, Mailer],
})
export class ReceiptsModule {}
