import { WorkerHost } from '@nestjs/bullmq';
import {
  currentOperation,
  IdempotentProcessor,
  type OperationJob,
  type ResultOf,
} from 'nestjs-idempotent-jobs';
import { PACE } from '../pace.js';
import { ChargePayload, CHARGES, type ChargeJobs } from './charge.jobs.js';
import { OrderCharge } from './order-charge.js';

/**
 * Charges the customer's card. The gateway honours idempotency keys, so the effect is `keyed`: after a lost answer or a
 * crash the same key is sent again, and the gateway returns the charge that it has already made.
 */
@IdempotentProcessor<ChargeJobs>(
  CHARGES,
  { effect: 'keyed', payload: ChargePayload, retry: 'charge', dependency: 'gateway' },
  PACE,
)
export class ChargeProcessor extends WorkerHost {
  constructor(private readonly charge: OrderCharge) {
    super();
  }

  async process({ data }: OperationJob<ChargeJobs>): Promise<ResultOf<ChargeJobs>> {
    const operation = currentOperation();
    const charge = await this.charge.make(operation, data, operation.idempotencyKey);
    return this.charge.proceed(operation, data, charge);
  }
}
