import { Module } from '@nestjs/common';
import { QueuesModule } from '../queues.module.js';
import { ChargeProcessor } from './charge.processor.js';
import { PaymentGateway } from './payment-gateway.js';

@Module({ imports: [QueuesModule], providers: [ChargeProcessor, PaymentGateway] })
export class ChargesModule {}
