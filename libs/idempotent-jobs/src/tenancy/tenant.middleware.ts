import { BadRequestException, Inject, Injectable, type NestMiddleware } from '@nestjs/common';
import { tenantIdProblem } from '../operation/identity.js';
import { RESOLVED_OPTIONS } from '../option-checks/resolved-options.token.js';
import { TenantContext } from './tenant-context.js';

interface TenantOptions {
  readonly resolveTenant:
    ((request: unknown) => string | undefined | Promise<string | undefined>) | undefined;
}

/**
 * Opens the tenant's frame for an HTTP request with the resolver of `forRoot({ tenants: { resolve } })`. A resolver
 * that answers undefined leaves the request without a tenant: routes that enqueue then fail with TENANT_MISSING,
 * routes that do not need one (health checks) work.
 *
 * ```ts
 * consumer.apply(TenantMiddleware).forRoutes('*path');
 * ```
 */
@Injectable()
export class TenantMiddleware implements NestMiddleware {
  /** @internal Injected. */
  constructor(
    private readonly tenants: TenantContext,
    @Inject(RESOLVED_OPTIONS) private readonly options: TenantOptions,
  ) {}

  async use(request: unknown, _response: unknown, next: (error?: unknown) => void): Promise<void> {
    let tenantId: string | undefined;
    try {
      tenantId = await this.options.resolveTenant?.(request);
    } catch (error) {
      next(error);
      return;
    }
    if (tenantId === undefined || tenantId === null) {
      next();
      return;
    }
    const problem = tenantIdProblem(tenantId);
    if (problem !== undefined) {
      next(new BadRequestException(problem));
      return;
    }
    this.tenants.run(tenantId, next);
  }
}
