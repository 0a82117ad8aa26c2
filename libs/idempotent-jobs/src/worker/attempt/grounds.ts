import { Injectable } from '@nestjs/common';
import { type Ground, GroundServices } from './ground.js';
import { LeaseGround } from './lease.ground.js';
import { OptimisticGround } from './optimistic.ground.js';
import type { OperationRun } from './operation-run.js';
import { TransactionGround } from './transaction.ground.js';

/** Makes the ground of each attempt, which depends on its effect. */
@Injectable()
export class Grounds extends GroundServices {
  of(run: OperationRun): Ground {
    return run.rules.isOptimistic ? new OptimisticGround(run, this) : this.claiming(run);
  }

  /** One that is surely claimed, to record an end without an attempt. */
  claiming(run: OperationRun): Ground {
    return run.rules.effect === 'transactional'
      ? new TransactionGround(run, this)
      : new LeaseGround(run, this);
  }
}
