import { Injectable } from '@nestjs/common';
import { InvalidIdentityError, TenantMismatchError, TenantMissingError } from '../operation/errors.js';
import { tenantIdProblem } from '../operation/identity.js';
import { frames, inFrame } from './frames.js';

/**
 * The tenant that the running code works for. The library opens a fresh frame around every job and never lets a job
 * inherit one: a worker that was started inside of a request would otherwise run every later job as that request's tenant.
 *
 * One instance per application; two applications in one process do not see each other's frames.
 */
@Injectable()
export class TenantContext {
  /** The tenant of the surrounding frame. Undefined outside of any frame. */
  get current(): string | undefined {
    const frame = frames.getStore();
    return frame?.owner === this ? frame.tenantId : undefined;
  }

  /**
   * Runs `fn` in a frame of its own, whatever frame surrounds it.
   *
   * @throws InvalidIdentityError if the tenant id is missing, empty, too long or malformed
   */
  run<T>(tenantId: string, fn: () => T): T {
    const problem = tenantIdProblem(tenantId);
    if (problem !== undefined) throw new InvalidIdentityError(problem);
    return frames.run({ operation: undefined, ...frames.getStore(), owner: this, tenantId }, fn);
  }

  /**
   * Runs `fn` outside of every tenant's frame. For actions that concern all tenants, such as `RetentionService.prune()`,
   * which is refused inside of a frame. The caller is responsible for that.
   */
  runOutside<T>(fn: () => T): T {
    return inFrame(undefined, fn);
  }

  /** Opens a job's frame, which inherits nothing from the surrounding one. @internal */
  runJob<T>(tenantId: string, fn: () => T): T {
    return frames.run({ owner: this, tenantId, operation: undefined }, fn);
  }

  /**
   * Opens a guarded call's frame. It does not know the operation of the surrounding frame; `call` is added to its calls.
   * @internal
   */
  runCall<T>(tenantId: string, call: object, fn: () => T): T {
    const around = frames.getStore();
    const calls = [...(around?.calls ?? []), call];
    return frames.run({ ...around, owner: this, tenantId, operation: undefined, calls }, fn);
  }

  /** @throws TenantMissingError outside of any frame */
  require(): string {
    const tenantId = this.current;
    if (tenantId === undefined) {
      throw new TenantMissingError(
        'No tenant is known here. Wrap the call in TenantContext.run(tenantId, …), open the frame for HTTP requests with the tenant middleware (forRoot({ tenants: { resolve } })), or pass tenantId.',
      );
    }
    return tenantId;
  }

  /** Refuses an action for all tenants inside of a tenant's frame. @throws TenantMismatchError @internal */
  assertOutside(what: string): void {
    const { current } = this;
    if (current === undefined) return;
    throw new TenantMismatchError(
      `${what} is done for all tenants, but was called inside the frame of tenant "${current}". Do it outside of requests and jobs, or on purpose with TenantContext.runOutside(() => …).`,
      { current },
    );
  }

  /**
   * The tenant to act for: the given one if it agrees with the frame, else the frame's.
   *
   * @throws TenantMismatchError if a frame is open for another tenant
   * @throws TenantMissingError if neither is known
   */
  assert(tenantId: string | undefined): string {
    if (tenantId === undefined) return this.require();
    const problem = tenantIdProblem(tenantId);
    if (problem !== undefined) throw new InvalidIdentityError(problem);
    const current = this.current;
    if (current !== undefined && current !== tenantId) {
      throw new TenantMismatchError(
        `Tenant "${tenantId}" was given inside a frame of tenant "${current}". Leave tenantId out, or open a frame of the other tenant on purpose with TenantContext.run("${tenantId}", …).`,
        { given: tenantId, current },
      );
    }
    return tenantId;
  }
}
