import { createHash } from 'node:crypto';

/** What `POST /charges` asks for. */
export interface ChargeRequest {
  readonly tenant: string;
  readonly orderId: string;
  readonly amountCents: number;
  readonly currency: string;
}

/** Reads the body; a string says what is wrong with it. */
export function readChargeRequest(body: unknown): ChargeRequest | string {
  if (typeof body !== 'object' || body === null) return 'the body is a JSON object';
  const { tenant, orderId, amountCents, currency } = body as Record<string, unknown>;
  if (typeof tenant !== 'string' || tenant === '') return 'tenant is a text';
  if (typeof orderId !== 'string' || orderId === '') return 'orderId is a text';
  if (!Number.isSafeInteger(amountCents) || Number(amountCents) <= 0)
    return 'amountCents is a whole number above 0';
  if (typeof currency !== 'string' || !/^[A-Z]{3}$/.test(currency)) return 'currency is a code like EUR';
  return { tenant, orderId, amountCents: Number(amountCents), currency };
}

/** The same for the same charge, in whatever order its fields came. */
export function hashOf({ tenant, orderId, amountCents, currency }: ChargeRequest): string {
  return createHash('sha256')
    .update(JSON.stringify([tenant, orderId, amountCents, currency]))
    .digest('hex');
}
