import { Controller, Get } from '@nestjs/common';
import { HealthCheck, type HealthCheckResult, HealthCheckService } from '@nestjs/terminus';
import { IdempotentJobsHealthIndicator } from 'nestjs-idempotent-jobs/observe';
import { CHARGES } from '../charges/charge.jobs.js';
import { INVENTORY } from '../inventory/inventory.jobs.js';
import { DEPENDENCIES } from '../pace.js';
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

  /** How this process gets through to the services it calls. No probe asks this: an outage over there is no reason to restart. */
  @Get('dependencies')
  @HealthCheck()
  dependencies(): Promise<HealthCheckResult> {
    return this.health.check(Object.keys(DEPENDENCIES).map((name) => () => this.jobs.dependency(name)));
  }
}
