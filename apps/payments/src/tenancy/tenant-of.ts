import type { Request } from 'express';

/** Names the tenant of a request. */
export const TENANT_HEADER = 'x-tenant-id';

/**
 * Whose request it is. A shop that faces the internet would read this from a verified token: a header that anybody can
 * write is only as good as the proxy that sets it.
 */
export function tenantOf(request: Request): string | undefined {
  return request.header(TENANT_HEADER);
}
