import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { SimulatorClient } from '../client/simulator-client.js';
import { openSimulator } from '../simulator.js';

const order = { tenant: 'acme', orderId: 'order-1', amountCents: 1_250, currency: 'EUR' };

describe('the gateway', () => {
  const directory = mkdtempSync(join(tmpdir(), 'gateway-spec-'));
  let simulator: Awaited<ReturnType<typeof openSimulator>>;
  let client: SimulatorClient;
  let run = '';
  let runs = 0;
  beforeAll(async () => {
    simulator = await openSimulator({ httpPort: 0, smtpPort: 0, ledger: join(directory, 'ledger.jsonl') });
    client = new SimulatorClient(simulator.http);
  });
  beforeEach(() => {
    run = `run-${++runs}`;
  });
  afterAll(async () => {
    await simulator.close();
    rmSync(directory, { recursive: true, force: true });
  });

  async function charge(body: unknown, headers: Record<string, string> = {}, signal?: AbortSignal) {
    const response = await fetch(`${simulator.http}/charges`, {
      method: 'POST',
      headers: { 'x-run': run, 'x-tenant': 'acme', ...headers },
      body: JSON.stringify(body),
      ...(signal && { signal }),
    });
    return {
      status: response.status,
      headers: response.headers,
      body: (await response.json()) as { chargeId: string },
    };
  }
  const look = (path: string, headers: Record<string, string> = {}) =>
    fetch(simulator.http + path, { headers: { 'x-run': run, 'x-tenant': 'acme', ...headers } });
  const outcomes = async () => (await client.ledger(run)).map(({ outcome }) => outcome);
  const key = { 'idempotency-key': 'key-1' };

  it('makes one charge of two requests with one key', async () => {
    const first = await charge(order, key);
    const second = await charge(order, key);
    expect([first.status, second.status]).toEqual([201, 200]);
    expect(second.body).toEqual(first.body);
    expect(second.headers.get('idempotent-replayed')).toBe('true');
    expect(await outcomes()).toEqual(['done', 'replayed']);
  });

  it('records who asked, and as whom', async () => {
    const who = { 'x-attempt': '3', 'x-fencing-token': '17', 'x-worker': 'w1', 'x-tenant': 'globex' };
    await charge(order, { ...key, ...who });
    expect(await client.ledger(run)).toEqual([
      expect.objectContaining({
        tenant: 'acme',
        claimedTenant: 'globex',
        key: 'key-1',
        subject: 'order-1',
        attempt: 3,
        fencingToken: 17,
        worker: 'w1',
        effect: true,
      }),
    ]);
  });

  it('refuses the key of another body', async () => {
    await charge(order, key);
    expect((await charge({ ...order, amountCents: 1 }, key)).status).toBe(422);
    expect(await outcomes()).toEqual(['done', 'conflict']);
  });

  it('takes the same key of another tenant, or in another run, for another key', async () => {
    const mine = await charge(order, key);
    const theirs = await charge({ ...order, tenant: 'globex' }, key);
    const elsewhere = await charge(order, { ...key, 'x-run': `${run}-other` });
    expect(new Set([mine, theirs, elsewhere].map(({ body }) => body.chargeId)).size).toBe(3);
  });

  it('charges for each call without a key, and with one when told not to honour it', async () => {
    await charge(order);
    await charge(order);
    await client.faults({ run, service: 'charge', honourKeys: false });
    await charge(order, key);
    await charge(order, key);
    expect(await outcomes()).toEqual(['done', 'done', 'done', 'done']);
  });

  it('lets one of many requests at once win, and never charges twice', async () => {
    await client.script({ run, service: 'charge', steps: ['slow'], slowMs: 150 });
    const answers = await Promise.all(Array.from({ length: 5 }, () => charge(order, key)));
    expect(answers.map(({ status }) => status).sort((one, other) => one - other)).toEqual([
      201, 409, 409, 409, 409,
    ]);
    expect((await client.ledger(run)).filter(({ effect }) => effect)).toHaveLength(1);
  });

  it('finds a charge by key and by id, for its tenant and run only', async () => {
    const { body } = await charge(order, key);
    expect(await (await look('/charges?key=key-1')).json()).toEqual(body);
    expect(await (await look(`/charges/${body.chargeId}`)).json()).toEqual(body);
    expect((await look('/charges?key=key-2')).status).toBe(404);
    expect((await look('/charges?key=key-1', { 'x-tenant': 'globex' })).status).toBe(404);
    expect((await look(`/charges/${body.chargeId}`, { 'x-run': 'elsewhere' })).status).toBe(404);
  });

  it.each([
    null,
    'text',
    {},
    { ...order, tenant: '' },
    { ...order, amountCents: 0.5 },
    { ...order, currency: '€' },
  ])('answers 400 to %j, and records an arrival without an effect', async (body) => {
    expect((await charge(body)).status).toBe(400);
    expect(await client.ledger(run)).toEqual([
      expect.objectContaining({ outcome: 'invalid', effect: false }),
    ]);
  });

  describe('when a fault strikes', () => {
    it('loses the answer, and the retry is a replay', async () => {
      await client.script({ run, service: 'charge', steps: ['answer_lost'] });
      await expect(charge(order, key)).rejects.toThrow('fetch failed');
      expect((await charge(order, key)).status).toBe(200);
      expect(await outcomes()).toEqual(['done', 'replayed']);
    });

    it('claims an error after the effect, and the retry is a replay', async () => {
      await client.script({ run, service: 'charge', steps: ['error_after_effect'] });
      expect((await charge(order, key)).status).toBe(500);
      expect((await charge(order, key)).status).toBe(200);
    });

    it.each([
      { step: 'refused', status: 503, retryAfter: null },
      { step: 'throttled', status: 429, retryAfter: '7' },
    ] as const)('answers $status without an effect when $step', async ({ step, status, retryAfter }) => {
      await client.script({ run, service: 'charge', steps: [step], retryAfterSeconds: 7 });
      const answer = await charge(order, key);
      expect([answer.status, answer.headers.get('retry-after')]).toEqual([status, retryAfter]);
      expect((await charge(order, key)).status).toBe(201);
      expect(await outcomes()).toEqual([step, 'done']);
    });

    it('answers after a while when slow, with the effect in the ledger at once', async () => {
      await client.script({ run, service: 'charge', steps: ['slow'], slowMs: 200 });
      const startedAt = performance.now();
      const answer = charge(order, key);
      await expect.poll(outcomes).toEqual(['done']);
      expect((await answer).status).toBe(201);
      expect(performance.now() - startedAt).toBeGreaterThan(190);
    });

    it('never answers when it hangs, and has the charge once the client has given up', async () => {
      await client.script({ run, service: 'charge', steps: ['hang'] });
      await expect(charge(order, key, AbortSignal.timeout(100))).rejects.toThrow('timeout');
      await expect.poll(async () => (await charge(order, key)).status).toBe(200);
    });

    it('charges late, though the client has gone', async () => {
      await client.script({ run, service: 'charge', steps: ['late'], slowMs: 200 });
      await expect(charge(order, key, AbortSignal.timeout(50))).rejects.toThrow('timeout');
      expect((await look('/charges?key=key-1')).status).toBe(404);
      expect((await charge(order, key)).status).toBe(409);
      await expect.poll(async () => (await look('/charges?key=key-1')).status).toBe(200);
    });

    it('meets the same faults in another run with the same seed, and counts those that happened', async () => {
      const struck = async (name: string) => {
        run = name;
        const kinds = ['refused', 'throttled', 'error_after_effect'] as const;
        await client.faults({ run, service: 'charge', seed: 3, rate: 0.5, kinds });
        const orders = Array.from({ length: 40 }, (_, index) => ({ ...order, orderId: `order-${index}` }));
        await Promise.all(orders.map((one) => charge(one)));
        const entries = (await client.ledger(run)).filter(({ fault }) => fault !== null);
        return entries.map(({ subject, fault }) => `${subject} ${fault}`).sort();
      };
      const first = await struck(`${run}-a`);
      const second = await struck(`${run}-b`);
      expect(second).toEqual(first);
      const counts = Object.values((await client.faultCounts(run)).charge);
      expect(counts.reduce((sum, count) => sum + count, 0)).toBe(first.length);
      expect(first.length).toBeGreaterThan(10);
    });
  });

  it('remembers nothing of a run that was reset', async () => {
    await charge(order, key);
    await client.reset(run);
    expect(await client.ledger(run)).toEqual([]);
    expect((await charge(order, key)).status).toBe(201);
  });
});
