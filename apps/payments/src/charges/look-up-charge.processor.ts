import { WorkerHost } from '@nestjs/bullmq';
import {
  type CurrentOperation,
  currentOperation,
  IdempotentProcessor,
  type OperationJob,
  type Reconciles,
  Reconciliation,
  type ResultOf,
} from 'nestjs-idempotent-jobs';
import { PACE, QUESTIONS } from '../pace.js';
import { ChargePayload, CHARGES, type ChargeJobs } from './charge.jobs.js';
import { OrderCharge } from './order-charge.js';

/**
 * Charges through a gateway that stores the key with the charge, but charges again when the key is sent again. It can
 * find a charge by its key, so the effect is `reconciled`: after a lost answer or a crash the charge is looked up, and
 * made again only if the gateway has none.
 */
@IdempotentProcessor<ChargeJobs>(
  CHARGES,
  {
    effect: 'reconciled',
    reconcile: QUESTIONS,
    payload: ChargePayload,
    retry: 'charge',
    dependency: 'gateway',
  },
  PACE,
)
export class LookUpChargeProcessor extends WorkerHost implements Reconciles<ResultOf<ChargeJobs>> {
  constructor(private readonly charge: OrderCharge) {
    super();
  }

  async process({ data }: OperationJob<ChargeJobs>): Promise<ResultOf<ChargeJobs>> {
    const operation = currentOperation();
    const charge = await this.charge.make(operation, data, operation.idempotencyKey);
    return this.charge.proceed(operation, data, charge);
  }

  /** Any response but a charge or "there is none" throws, so that the question stays open. */
  async reconcile(operation: CurrentOperation): Promise<Reconciliation<ResultOf<ChargeJobs>>> {
    const charge = await this.charge.find(operation);
    if (charge === undefined) return Reconciliation.notApplied();
    return Reconciliation.applied(
      this.charge.proceed(operation, operation.job.data as ChargePayload, charge),
    );
  }
}
