import { WorkerHost } from '@nestjs/bullmq';
import type { Job } from 'bullmq';
import { IsInt, IsString } from 'class-validator';
import { currentOperation, IdempotentProcessor } from 'nestjs-idempotent-jobs';

export class Charge {
  @IsString()
  orderId!: string;

  @IsInt()
  cents!: number;
}

@IdempotentProcessor('charges', { effect: 'keyed', payload: Charge, timeoutMs: 10_000, clientRetries: 0 })
export class ChargeProcessor extends WorkerHost {
  async process(job: Job<Charge>): Promise<{ text: string }> {
    const { tenantId, attempt } = currentOperation();
    return { text: `${tenantId} paid ${job.data.cents} for ${job.data.orderId} at attempt ${attempt}` };
  }
}
