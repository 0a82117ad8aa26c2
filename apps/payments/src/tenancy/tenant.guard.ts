import { BadRequestException, type CanActivate, Injectable } from '@nestjs/common';
import { TenantContext } from 'nestjs-idempotent-jobs';
import { TENANT_HEADER } from './tenant-of.js';

/** Rejects requests without a tenant. */
@Injectable()
export class TenantGuard implements CanActivate {
  constructor(private readonly tenants: TenantContext) {}

  canActivate(): boolean {
    if (this.tenants.current === undefined)
      throw new BadRequestException(`The header ${TENANT_HEADER} is missing`);
    return true;
  }
}
