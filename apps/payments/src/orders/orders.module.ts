import { Module } from '@nestjs/common';
import { QueuesModule } from '../queues.module.js';
import { OrderProgressService } from './order-progress.service.js';
import { OrdersController } from './orders.controller.js';
import { OrdersService } from './orders.service.js';

@Module({
  imports: [QueuesModule],
  controllers: [OrdersController],
  providers: [OrdersService, OrderProgressService],
})
export class OrdersModule {}
