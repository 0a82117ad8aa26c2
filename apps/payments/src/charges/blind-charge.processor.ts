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
 * Charges through a gateway that has neither keys nor a look-up. So the effect is `unrepeatable`: a lost answer or a
 * crash leaves the charge in doubt, and the operator checks the bank statement. No customer is charged twice.
 */
@IdempotentProcessor<ChargeJobs>(
  CHARGES,
  { effect: 'unrepeatable', payload: ChargePayload, retry: 'charge', dependency: 'gateway' },
  PACE,
)
export class BlindChargeProcessor extends WorkerHost {
  constructor(private readonly charge: OrderCharge) {
    super();
  }

  async process({ data }: OperationJob<ChargeJobs>): Promise<ResultOf<ChargeJobs>> {
    const operation = currentOperation();
    return this.charge.proceed(operation, data, await this.charge.make(operation, data));
  }
}
