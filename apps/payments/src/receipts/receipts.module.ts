import { type DynamicModule, Module, type Type } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { Order } from '../orders/order.entity.js';
import { QueuesModule } from '../queues.module.js';
import type { MailBy } from '../settings.js';
import { LookUpReceiptProcessor } from './look-up-receipt.processor.js';
import { MailboxClient } from './mailbox-client.js';
import { Mailer } from './mailer.js';
import { OrderReceipt } from './order-receipt.js';
import { ReceiptProcessor } from './receipt.processor.js';

const PROCESSORS: Readonly<Record<MailBy, Type>> = {
  'look-up': LookUpReceiptProcessor,
  neither: ReceiptProcessor,
};

@Module({})
export class ReceiptsModule {
  /** Registers only one of the processors, since they share a queue. */
  static by(way: MailBy): DynamicModule {
    return {
      module: ReceiptsModule,
      imports: [QueuesModule, TypeOrmModule.forFeature([Order])],
      providers: [PROCESSORS[way], OrderReceipt, Mailer, MailboxClient],
    };
  }
}
