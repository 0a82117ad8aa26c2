import { Injectable } from '@nestjs/common';
import { InvalidIdentityError } from '../../operation/errors.js';
import { tenantIdProblem } from '../../operation/identity.js';
import { assertAuthor, type LedgerAction } from '../../operation/ledger-action.js';
import { TenantContext } from '../../tenancy/tenant-context.js';
import { type Erased, Erasure } from './erasure.js';
import { type Pruned, Pruner } from './pruner.js';

/** Deletes what is past its retention, and whole tenants. */
@Injectable()
export class RetentionService {
  /** @internal Injected. */
  constructor(
    private readonly pruner: Pruner,
    private readonly erasure: Erasure,
    private readonly tenants: TenantContext,
  ) {}

  /**
   * Removes completed operations and resolved letters that are past their retention, in small batches. The application
   * also does so by itself, every `recovery.pruneMs`.
   *
   * @param options.dryRun only count. Default false.
   * @throws TenantMismatchError inside of a tenant's frame, since it works on all tenants
   */
  async prune({ dryRun = false }: { readonly dryRun?: boolean } = {}): Promise<Pruned> {
    this.tenants.assertOutside('prune()');
    return dryRun ? this.pruner.count() : this.pruner.prune();
  }

  /**
   * Removes a tenant: its operations, attempts and dead letters, and its jobs on the queues that are registered here. The
   * audit keeps that it was done, by whom and why; of the tenant's other entries it keeps only who and when. Letters that
   * never had a tenant stay, since they cannot be matched.
   *
   * Stop enqueueing for the tenant first. If the erasure is interrupted, run it again.
   *
   * @throws UsageError while operations of the tenant run; TenantMismatchError inside a frame of another tenant
   */
  async erase(options: { readonly tenantId: string } & LedgerAction): Promise<Erased> {
    const author = assertAuthor(options);
    const problem = tenantIdProblem(options.tenantId);
    if (problem !== undefined) throw new InvalidIdentityError(problem);
    if (this.tenants.current !== undefined) this.tenants.assert(options.tenantId);
    if (options.dryRun !== true) return this.erasure.erase(options.tenantId, author);
    const { operations, letters, attempts, jobs } = await this.erasure.count(options.tenantId);
    return { operations, letters, attempts, jobs };
  }
}
