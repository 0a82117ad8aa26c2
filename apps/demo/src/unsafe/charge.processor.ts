import { InjectQueue, Processor, WorkerHost } from '@nestjs/bullmq';
import { InjectRepository } from '@nestjs/typeorm';
import type { Job, Queue } from 'bullmq';
import { Order, PaymentGateway, Settings } from 'payments';
import { Repository } from 'typeorm';
import { CHARGES, type OrderJob, RECEIPTS, type ReceiptJob, RETRIES } from '../plain/order-job.js';
import { PACE } from '../plain/worker-pace.js';
import { setCurrentTenant } from './current-tenant.js';

/** Charges the card, and leaves everything that goes wrong to BullMQ's retries. */
@Processor(CHARGES, PACE)
export class ChargeProcessor extends WorkerHost {
  constructor(
    @InjectRepository(Order) private readonly orders: Repository<Order>,
    @InjectQueue(RECEIPTS) private readonly receipts: Queue<ReceiptJob>,
    private readonly gateway: PaymentGateway,
    private readonly settings: Settings,
  ) {
    super();
  }

  async process({ data }: Job<OrderJob>): Promise<void> {
    const { tenantId, orderId } = data;
    setCurrentTenant(tenantId);
    const { amountCents, currency } = await this.orders.findOneByOrFail({ tenantId, id: orderId });
    const { chargeId } = await this.gateway.charge(
      { tenant: tenantId, orderId, amountCents, currency },
      { 'x-worker': this.settings.workerName },
    );
    await this.receipts.add('receipt', { tenantId, orderId, chargeId }, RETRIES);
  }
}
