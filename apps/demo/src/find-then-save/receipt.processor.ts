import { Processor, WorkerHost } from '@nestjs/bullmq';
import { InjectRepository } from '@nestjs/typeorm';
import type { Job } from 'bullmq';
import { Mailer, Order, receiptMail, Settings } from 'payments';
import { Repository } from 'typeorm';
import { type ReceiptJob, RECEIPTS } from '../plain/order-job.js';
import { PACE } from '../plain/worker-pace.js';
import { ProcessedJob } from './processed-job.entity.js';

/** Mails the receipt, unless that is known to be done. */
@Processor(RECEIPTS, PACE)
export class ReceiptProcessor extends WorkerHost {
  constructor(
    @InjectRepository(ProcessedJob) private readonly processed: Repository<ProcessedJob>,
    @InjectRepository(Order) private readonly orders: Repository<Order>,
    private readonly mailer: Mailer,
    private readonly settings: Settings,
  ) {
    super();
  }

  async process({ id: jobId = '', data }: Job<ReceiptJob>): Promise<void> {
    const { tenantId, orderId, chargeId } = data;
    if (await this.processed.existsBy({ tenantId, jobId })) return;
    const order = await this.orders.findOneByOrFail({ tenantId, id: orderId });
    await this.mailer.send({
      ...receiptMail(tenantId, order, chargeId),
      headers: { 'X-Tenant': tenantId, 'X-Worker': this.settings.workerName },
    });
    await this.processed.save({ tenantId, jobId });
  }
}
