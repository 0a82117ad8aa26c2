import type { Request } from 'express';

/** The header that names the tenant of a request. */
export const TENANT_HEADER = 'x-tenant-id';

/**
 * The tenant of a request. A shop on the internet would read it from a verified token: any client can write a header, so
 * it is only as trustworthy as the proxy that sets it.
 */
export function tenantOf(request: Request): string | undefined {
  return request.header(TENANT_HEADER);
}
