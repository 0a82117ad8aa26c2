import { Injectable } from '@nestjs/common';
import { ClaimStore } from '../../ledger/claim/claim.store.js';
import { LeaseKeeper } from '../../ledger/claim/lease-keeper.js';
import { UnusedClaims } from '../../ledger/claim/unused-claims.js';
import { Database } from '../../ledger/postgres/database.js';
import { OutcomeStore } from '../../ledger/record/outcome.store.js';
import { FollowUps } from './follow-ups.js';
import type { Ground, GroundServices } from './ground.js';
import { LeaseGround } from './lease.ground.js';
import type { OperationRun } from './operation-run.js';
import { TransactionGround } from './transaction.ground.js';

/** Makes the ground of each attempt, which depends on its effect. */
@Injectable()
export class Grounds implements GroundServices {
  constructor(
    readonly claims: ClaimStore,
    readonly leases: LeaseKeeper,
    readonly outcomes: OutcomeStore,
    readonly followUps: FollowUps,
    readonly unused: UnusedClaims,
    readonly database: Database,
  ) {}

  of(run: OperationRun): Ground {
    return run.rules.effect === 'transactional'
      ? new TransactionGround(run, this)
      : new LeaseGround(run, this);
  }
}
