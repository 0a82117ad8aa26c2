import { InjectQueue, Processor, WorkerHost } from '@nestjs/bullmq';
import { InjectRepository } from '@nestjs/typeorm';
import type { Job, Queue } from 'bullmq';
import { Order, PaymentGateway, Settings } from 'payments';
import { Repository } from 'typeorm';
import { CHARGES, type OrderJob, RECEIPTS, type ReceiptJob, RETRIES } from '../plain/order-job.js';
import { PACE } from '../plain/worker-pace.js';
import { receiptJobIdOf } from './job-ids.js';
import { ProcessedJob } from './processed-job.entity.js';

/** Charges the card, unless that is known to be done. */
@Processor(CHARGES, PACE)
export class ChargeProcessor extends WorkerHost {
  constructor(
    @InjectRepository(ProcessedJob) private readonly processed: Repository<ProcessedJob>,
    @InjectRepository(Order) private readonly orders: Repository<Order>,
    @InjectQueue(RECEIPTS) private readonly receipts: Queue<ReceiptJob>,
    private readonly gateway: PaymentGateway,
    private readonly settings: Settings,
  ) {
    super();
  }

  async process({ id: jobId = '', data }: Job<OrderJob>): Promise<void> {
    const { tenantId, orderId } = data;
    if (await this.processed.existsBy({ tenantId, jobId })) return;
    const { amountCents, currency } = await this.orders.findOneByOrFail({ tenantId, id: orderId });
    const { chargeId } = await this.gateway.charge(
      { tenant: tenantId, orderId, amountCents, currency },
      { 'x-worker': this.settings.workerName },
    );
    // Before it counts as done: the other way round, a crash in between would lose the receipt.
    await this.receipts.add('receipt', { ...data, chargeId }, { ...RETRIES, jobId: receiptJobIdOf(data) });
    await this.processed.save({ tenantId, jobId });
  }
}
