import { type DynamicModule, Module, type Type } from '@nestjs/common';
import { QueuesModule } from '../queues.module.js';
import type { ChargeBy } from '../settings.js';
import { BlindChargeProcessor } from './blind-charge.processor.js';
import { ChargeProcessor } from './charge.processor.js';
import { LookUpChargeProcessor } from './look-up-charge.processor.js';
import { OrderCharge } from './order-charge.js';
import { PaymentGateway } from './payment-gateway.js';

const PROCESSORS: Readonly<Record<ChargeBy, Type>> = {
  key: ChargeProcessor,
  'look-up': LookUpChargeProcessor,
  neither: BlindChargeProcessor,
};

@Module({})
export class ChargesModule {
  /** Registers only one of the processors, since they share a queue. */
  static by(way: ChargeBy): DynamicModule {
    const providers = [PROCESSORS[way], OrderCharge, PaymentGateway];
    return { module: ChargesModule, imports: [QueuesModule], providers };
  }
}
