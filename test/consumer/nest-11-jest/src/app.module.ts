import { BullModule } from '@nestjs/bullmq';
import { Injectable, Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import {
  IdempotentJobsModule,
  type IdempotentQueue,
  InjectIdempotentQueue,
  OutcomeService,
} from 'nestjs-idempotent-jobs';
import { type DeadLetterMessage, OnDeadLetter } from 'nestjs-idempotent-jobs/dead-letters';
import { type Charge, ChargeProcessor } from './charge.processor';

interface ChargeJobs {
  charge: { payload: Charge; result: { text: string } };
}

@Injectable()
export class Shop {
  constructor(
    @InjectIdempotentQueue('charges') private readonly charges: IdempotentQueue<ChargeJobs>,
    private readonly outcomes: OutcomeService,
  ) {}

  async sell(orderId: string): Promise<string | undefined> {
    const operation = await this.charges.enqueue(
      'charge',
      { orderId, cents: 500 },
      { operationKey: `charge:${orderId}`, tenantId: 'acme' },
    );
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

@Module({
  imports: [
    TypeOrmModule.forRoot({ type: 'postgres', url: process.env['DATABASE_URL'] as string }),
    BullModule.forRoot({ connection: { url: process.env['REDIS_URL'] as string } }),
    IdempotentJobsModule.forRoot({ migrations: 'run' }),
    IdempotentJobsModule.registerQueue('charges'),
  ],
  providers: [ChargeProcessor, Shop, Alerts],
})
export class AppModule {}
