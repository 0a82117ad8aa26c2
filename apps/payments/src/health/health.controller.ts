import { Controller, Get } from '@nestjs/common';
import { HealthCheck, type HealthCheckResult, HealthCheckService } from '@nestjs/terminus';
import { IdempotentJobsHealthIndicator } from 'nestjs-idempotent-jobs';
import { CHARGES } from '../charges/charge.jobs.js';
import { INVENTORY } from '../inventory/inventory.jobs.js';
import { RECEIPTS } from '../receipts/receipt.jobs.js';

@Controller('health')
export class HealthController {
  constructor(
    private readonly health: HealthCheckService,
    private readonly jobs: IdempotentJobsHealthIndicator,
  ) {}

  /** 503 when jobs cannot be run. `degraded`, with 200, when a person should look: something is in doubt, say. */
  @Get()
  @HealthCheck()
  check(): Promise<HealthCheckResult> {
    return this.health.check([
      () => this.jobs.ledger(),
      () => this.jobs.queue(INVENTORY),
      () => this.jobs.queue(CHARGES),
      () => this.jobs.queue(RECEIPTS),
    ]);
  }
}
