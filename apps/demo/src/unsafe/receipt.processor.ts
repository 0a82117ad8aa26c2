import { Processor, WorkerHost } from '@nestjs/bullmq';
import { InjectRepository } from '@nestjs/typeorm';
import type { Job } from 'bullmq';
import { Order } from 'payments';
import { Repository } from 'typeorm';
import { type ReceiptJob, RECEIPTS } from '../plain/order-job.js';
import { PACE } from '../plain/worker-pace.js';
import { setCurrentTenant } from './current-tenant.js';
import { ShopMailer } from './shop-mailer.js';

/** Mails the receipt in the name of the current tenant. */
@Processor(RECEIPTS, PACE)
export class ReceiptProcessor extends WorkerHost {
  constructor(
    @InjectRepository(Order) private readonly orders: Repository<Order>,
    private readonly mailer: ShopMailer,
  ) {
    super();
  }

  async process({ data }: Job<ReceiptJob>): Promise<void> {
    const { tenantId, orderId, chargeId } = data;
    setCurrentTenant(tenantId);
    const order = await this.orders.findOneByOrFail({ tenantId, id: orderId });
    await this.mailer.sendReceipt(order, chargeId);
  }
}
