import { Injectable } from '@nestjs/common';
import { Mailer, type Order, receiptMail, Settings } from 'payments';
import { currentTenant } from './current-tenant.js';

/** Writes in the current tenant's name. */
@Injectable()
export class ShopMailer {
  constructor(
    private readonly mailer: Mailer,
    private readonly settings: Settings,
  ) {}

  async sendReceipt(order: Order, chargeId: string): Promise<void> {
    const tenantId = currentTenant();
    await this.mailer.send({
      ...receiptMail(tenantId, order, chargeId),
      headers: { 'X-Tenant': tenantId, 'X-Worker': this.settings.workerName },
    });
  }
}
