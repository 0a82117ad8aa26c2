import { Injectable } from '@nestjs/common';
import { Settings } from '../settings.js';

/** A charge to be made. */
export interface ChargeRequest {
  readonly tenant: string;
  readonly orderId: string;
  readonly amountCents: number;
  readonly currency: string;
}

/** A charge that was made. */
export interface Charge {
  readonly chargeId: string;
}

/** The gateway answered, and not with success. `status` and `headers` tell the retry policy what to make of it. */
export class GatewayError extends Error {
  override readonly name = 'GatewayError';

  constructor(
    readonly status: number,
    readonly headers: Headers,
    reason: string,
  ) {
    super(`The gateway answered ${status}: ${reason}`);
  }
}

/** The payment gateway's HTTP interface. */
@Injectable()
export class PaymentGateway {
  constructor(private readonly settings: Settings) {}

  /**
   * Charges a card. Whether a second call charges again is up to `idempotency-key` among the headers.
   *
   * @throws GatewayError when the answer is not success; whatever fetch throws when there is none
   */
  async charge(
    request: ChargeRequest,
    headers: Readonly<Record<string, string>>,
    signal?: AbortSignal,
  ): Promise<Charge> {
    const { gatewayUrl, gatewayTimeoutMs } = this.settings;
    const timeout = AbortSignal.timeout(gatewayTimeoutMs);
    const response = await fetch(new URL('/charges', gatewayUrl), {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify(request),
      signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
    });
    const text = await response.text();
    if (!response.ok) throw new GatewayError(response.status, response.headers, text.slice(0, 200));
    return JSON.parse(text) as Charge;
  }
}
