import { Injectable } from '@nestjs/common';
import { type Outcome, OutcomeService, TenantContext } from 'nestjs-idempotent-jobs';
import { chargeKeyOf } from '../charges/charge.jobs.js';
import { reserveKeyOf, shipKeyOf } from '../inventory/inventory.jobs.js';
import { receiptKeyOf } from '../receipts/receipt.jobs.js';

/** The progress of one step of an order; `awaited`: the step before it has not completed. */
export type StepProgress =
  | { readonly status: 'awaited' }
  | Pick<Outcome, 'status' | 'attempts' | 'failures' | 'result' | 'error' | 'doubtSince' | 'reconcileDueAt'>;

/** The steps of an order: receipt and shipment both follow the charge. */
export interface OrderProgress {
  readonly reserve: StepProgress;
  readonly charge: StepProgress;
  readonly receipt: StepProgress;
  readonly ship: StepProgress;
}

/** Reads the progress of orders from the outcomes of their operations. */
@Injectable()
export class OrderProgressService {
  constructor(
    private readonly outcomes: OutcomeService,
    private readonly tenants: TenantContext,
  ) {}

  /** The progress of an order of the current tenant. */
  async of(orderId: string): Promise<OrderProgress> {
    const [reserve, charge, receipt, ship] = await Promise.all([
      this.step(reserveKeyOf(orderId)),
      this.step(chargeKeyOf(orderId)),
      this.step(receiptKeyOf(orderId)),
      this.step(shipKeyOf(orderId)),
    ]);
    return { reserve, charge, receipt, ship };
  }

  private async step(operationKey: string): Promise<StepProgress> {
    const outcome = await this.outcomes.get({ tenantId: this.tenants.require(), operationKey });
    if (outcome === undefined) return { status: 'awaited' };
    const { status, attempts, failures, result, error, doubtSince, reconcileDueAt } = outcome;
    return { status, attempts, failures, result, error, doubtSince, reconcileDueAt };
  }
}
