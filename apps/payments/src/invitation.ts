/** What `npm start` prints: how to try the shop with curl. */
export function invitation(shop: string, simulator: string, tenants: readonly string[]): string {
  const [tenant = ''] = tenants;
  return `
The shop is open at ${shop} for the tenants ${tenants.join(' and ')}. Ctrl-C closes it.

  Place an order (again with the same key: the same order; with another body: 409)
    curl -i ${shop}/orders -H 'x-tenant-id: ${tenant}' -H 'idempotency-key: order-1' -H 'content-type: application/json' \\
      -d '{"sku":"teapot","quantity":2,"customerEmail":"ada@${tenant}.test"}'

  See what became of it
    curl ${shop}/orders/order-1 -H 'x-tenant-id: ${tenant}'
    curl ${shop}/health
    curl ${shop}/metrics

  Look at the outside world: charges and mails that really happened
    curl ${simulator}/ledger
    curl ${simulator}/mailbox

  Make it misbehave: half of all charges and mails lose their answer, or are refused
    curl -X PUT ${simulator}/faults -d '{"service":"charge","rate":0.5,"kinds":["answer_lost","error_after_effect","refused"]}'
    curl -X PUT ${simulator}/faults -d '{"service":"mail","rate":0.5,"kinds":["answer_lost","refused"]}'

  A gateway that honours no keys: started with CHARGE_BY=look-up, the shop asks before it charges again; with
  MAIL_BY=look-up it looks into the mailbox before it mails again
    curl -X PUT ${simulator}/faults -d '{"service":"charge","honourKeys":false,"rate":0.5,"kinds":["answer_lost","refused"]}'
`;
}
