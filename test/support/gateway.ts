import type { CurrentOperation } from 'nestjs-idempotent-jobs';
import type { RunningSimulator } from 'simulator';

/** The gateway answered, and not with success. */
class GatewayError extends Error {
  constructor(
    readonly status: number,
    readonly headers: Headers,
  ) {
    super(`The gateway answered ${status}`);
  }
}

/** Charges a card at the simulator's gateway, which deduplicates by the operation's key. */
export async function charge(
  { http }: RunningSimulator,
  run: string,
  { tenantId, operationKey, attempt }: CurrentOperation,
  signal: AbortSignal,
): Promise<unknown> {
  const response = await fetch(new URL('/charges', http), {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      'idempotency-key': operationKey,
      'x-run': run,
      'x-attempt': String(attempt),
    },
    body: JSON.stringify({ tenant: tenantId, orderId: operationKey, amountCents: 100, currency: 'EUR' }),
    signal,
  });
  if (!response.ok) throw new GatewayError(response.status, response.headers);
  return response.json();
}
