import 'reflect-metadata';
import { BullModule, WorkerHost } from '@nestjs/bullmq';
import { Injectable, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import type { Job } from 'bullmq';
import { IsInt, IsString } from 'class-validator';
import {
  currentOperation,
  IdempotentJobsModule,
  IdempotentProcessor,
  type IdempotentQueue,
  InjectIdempotentQueue,
  OutcomeService,
  selectBackendByConnection,
} from 'nestjs-idempotent-jobs';
import { type DeadLetterMessage, OnDeadLetter } from 'nestjs-idempotent-jobs/dead-letters';

/* Somebody else's application: only the published package, strict types, its own node_modules. */

class Charge {
  @IsString()
  orderId!: string;

  @IsInt()
  cents!: number;
}

interface Receipt {
  text: string;
}

interface ChargeJobs {
  charge: { payload: Charge; result: Receipt };
}

@IdempotentProcessor<ChargeJobs>('charges', {
  effect: 'keyed',
  payload: Charge,
  timeoutMs: 10_000,
  clientRetries: 0,
})
class ChargeProcessor extends WorkerHost {
  async process(job: Job<Charge>): Promise<Receipt> {
    const { tenantId, attempt } = currentOperation();
    return { text: `${tenantId} paid ${job.data.cents} for ${job.data.orderId} at attempt ${attempt}` };
  }
}

@Injectable()
class Shop {
  constructor(
    @InjectIdempotentQueue('charges') private readonly charges: IdempotentQueue<ChargeJobs>,
    private readonly outcomes: OutcomeService,
  ) {}

  async sell(): Promise<string | undefined> {
    const payload = { orderId: 'order-1', cents: 500 };
    const operation = await this.charges.enqueue('charge', payload, {
      operationKey: 'charge:order-1',
      tenantId: 'acme',
    });
    const outcome = await this.outcomes.wait(operation);
    return outcome.result?.text;
  }
}

@Injectable()
class Alerts {
  @OnDeadLetter('charges')
  page(letter: DeadLetterMessage): void {
    console.error(`${letter.jobName} died: ${letter.reason}`);
  }
}

selectBackendByConnection();

@Module({
  imports: [
    TypeOrmModule.forRoot({ type: 'postgres', url: process.env['DATABASE_URL']! }),
    BullModule.forRoot({
      connection: { connectionString: process.env['DATABASE_URL'], migrate: true },
    }),
    IdempotentJobsModule.forRoot({ migrations: 'run', doctor: 'fail', traceContext: () => ({ sale: 1 }) }),
    IdempotentJobsModule.registerQueue('charges'),
  ],
  providers: [ChargeProcessor, Shop, Alerts],
})
class AppModule {}

const app = await NestFactory.createApplicationContext(AppModule, { logger: ['warn', 'error'] });
console.log(await app.get(Shop).sell());
await app.close();
