let current = '';

/** Whose job is being done: set at the beginning of each job, so that nobody needs to hand the tenant around. */
export function setCurrentTenant(tenantId: string): void {
  current = tenantId;
}

export function currentTenant(): string {
  return current;
}
