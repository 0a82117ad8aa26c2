import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startSimulator } from './start-simulator.js';

async function isUp(http: string): Promise<boolean> {
  return fetch(`${http}/health`).then(
    (response) => response.ok,
    () => false,
  );
}

describe('startSimulator', () => {
  let directory: string;
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'start-simulator-spec-'));
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  it('goes on with its ledger, keys and ports after a kill', async () => {
    const order = { tenant: 'acme', orderId: 'order-1', amountCents: 100, currency: 'EUR' };
    const charge = async (http: string) => {
      const headers = { 'idempotency-key': 'key-1', 'x-run': 'r' };
      const response = await fetch(`${http}/charges`, {
        method: 'POST',
        headers,
        body: JSON.stringify(order),
      });
      return response.status;
    };
    const first = await startSimulator({ ledger: join(directory, 'ledger.jsonl') });
    expect(await charge(first.http)).toBe(201);
    await first.kill();
    expect(await isUp(first.http)).toBe(false);

    const ports = { http: Number(new URL(first.http).port), smtp: Number(new URL(first.smtp).port) };
    const second = await startSimulator({ ledger: first.ledger, ...ports });
    expect(second.http).toBe(first.http);
    expect(await charge(second.http)).toBe(200);
    const entries = await second.client.ledger('r');
    expect(entries.map(({ number, outcome, ordinal }) => [number, outcome, ordinal])).toEqual([
      [1, 'done', 1],
      [2, 'replayed', 2],
    ]);
    await second.stop();
  }, 20_000);

  it('says why it could not be started', async () => {
    const simulator = await startSimulator();
    const taken = Number(new URL(simulator.http).port);
    await expect(startSimulator({ http: taken })).rejects.toThrow('EADDRINUSE');
    await expect(startSimulator({ smtp: taken })).rejects.toThrow('EADDRINUSE');
    await simulator.stop();
  }, 20_000);

  it('answers what it cannot do with an error that says so', async () => {
    const simulator = await startSimulator();
    await expect(simulator.client.faults({ service: 'charge', rate: 1 })).rejects.toThrow(
      'at least one of the kinds',
    );
    expect((await fetch(`${simulator.http}/nothing`)).status).toBe(404);
    await simulator.stop();
  }, 20_000);

  it('ends when its owner is killed', async () => {
    const script = `
      import { startSimulator } from '${new URL('../../dist/index.js', import.meta.url).href}';
      console.log((await startSimulator()).http);
      setInterval(() => {}, 1_000);`;
    const owner = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [http] = (await once(createInterface({ input: owner.stdout }), 'line')) as [string];
    expect(await isUp(http)).toBe(true);
    owner.kill('SIGKILL');
    await expect.poll(() => isUp(http), { timeout: 10_000 }).toBe(false);
  }, 20_000);
});
