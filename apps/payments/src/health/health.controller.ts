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

  /**
   * 503 when jobs cannot run. `degraded`, with 200, when the operator should look, for example at an operation in doubt.
   */
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

  /** The state of the services that this process calls. No probe uses it: their outage is no reason to restart. */
  @Get('dependencies')
  @HealthCheck()
  dependencies(): Promise<HealthCheckResult> {
    return this.health.check(Object.keys(DEPENDENCIES).map((name) => () => this.jobs.dependency(name)));
  }
}
