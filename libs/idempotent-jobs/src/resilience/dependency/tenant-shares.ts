/**
 * Counts which tenants' calls of one circuit fail, to find circuits that tenants share though the failures are one
 * tenant's own, for example when each tenant has its own endpoint. Remembers a limited number of tenants, for as long as
 * a call counts for the circuit.
 */
export class TenantShares {
  readonly #failed = new Set<string>();
  readonly #answered = new Set<string>();
  #since = -Infinity;

  constructor(
    private readonly windowMs: number,
    private readonly now: () => number,
  ) {}

  note(tenantId: string | undefined, isFailure: boolean): void {
    if (tenantId === undefined) return;
    if (this.now() - this.#since > this.windowMs) this.forget();
    const tenants = isFailure ? this.#failed : this.#answered;
    if (tenants.size < MAX_TENANTS) tenants.add(tenantId);
  }

  /** Whether all failures are one tenant's, while calls of others succeeded. */
  get isOneTenantsFault(): boolean {
    const [culprit] = this.#failed;
    if (culprit === undefined || this.#failed.size > 1) return false;
    return [...this.#answered].some((tenantId) => tenantId !== culprit);
  }

  forget(): void {
    this.#failed.clear();
    this.#answered.clear();
    this.#since = this.now();
  }
}

/** More do not change the answer. */
const MAX_TENANTS = 20;
