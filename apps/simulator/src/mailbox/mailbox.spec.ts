import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createTransport } from 'nodemailer';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { SimulatorClient } from '../client/simulator-client.js';
import { openSimulator } from '../simulator.js';

describe('the mailbox', () => {
  const directory = mkdtempSync(join(tmpdir(), 'mailbox-spec-'));
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

  async function send(to = 'customer@acme.test', socketTimeout = 5_000) {
    const { port } = new URL(simulator.smtp);
    const transport = createTransport({ host: '127.0.0.1', port: Number(port), socketTimeout });
    const headers = { 'X-Run': run, 'X-Tenant': 'acme', 'X-Operation-Key': 'receipt-1', 'X-Attempt': '2' };
    try {
      return await transport.sendMail({
        from: 'shop@acme.test',
        to,
        subject: 'Your receipt: 12,50 €',
        text: 'Thank you!\nYour order naïve-1 is paid.',
        messageId: '<receipt-1@acme.test>',
        headers: { ...headers, 'X-Worker': 'w1' },
      });
    } finally {
      transport.close();
    }
  }
  const delivered = () => client.mailbox(run);

  it('keeps a mail with what its headers, its envelope and its body say', async () => {
    await send();
    expect(await delivered()).toEqual([
      {
        number: expect.any(Number),
        at: expect.any(String),
        tenant: 'acme',
        recipientTenant: 'acme',
        key: 'receipt-1',
        attempt: 2,
        worker: 'w1',
        to: 'customer@acme.test',
        from: 'shop@acme.test',
        subject: 'Your receipt: 12,50 €',
        messageId: '<receipt-1@acme.test>',
        body: 'Thank you!\nYour order naïve-1 is paid.',
      },
    ]);
  });

  it('tells a mail to the customer of another tenant', async () => {
    await send('customer@globex.test');
    expect(await delivered()).toEqual([
      expect.objectContaining({ tenant: 'acme', recipientTenant: 'globex' }),
    ]);
  });

  it('finds mails by recipient and by Message-ID', async () => {
    await send();
    const find = (filter: { to?: string; messageId?: string }) => client.mailbox(run, filter);
    expect(await find({ to: 'customer@acme.test', messageId: '<receipt-1@acme.test>' })).toHaveLength(1);
    expect(await find({ to: 'nobody@acme.test' })).toEqual([]);
    expect(await find({ messageId: '<other@acme.test>' })).toEqual([]);
    expect(await client.mailbox(`${run}-other`)).toEqual([]);
  });

  it('delivers twice what is sent twice: no key is honoured', async () => {
    await send();
    await send();
    expect(await delivered()).toHaveLength(2);
  });

  it('takes one recipient per mail', async () => {
    const { rejected } = await send('one@acme.test, two@acme.test');
    expect(rejected).toEqual(['two@acme.test']);
  });

  it.each([
    { step: 'refused', code: 421 },
    { step: 'throttled', code: 450 },
  ] as const)('takes no mail and answers $code when $step', async ({ step, code }) => {
    await client.script({ run, service: 'mail', steps: [step] });
    await expect(send()).rejects.toMatchObject({ responseCode: code, command: 'DATA' });
    expect(await delivered()).toEqual([]);
    expect(await client.ledger(run)).toEqual([expect.objectContaining({ outcome: step, effect: false })]);
    expect(await client.faultCounts(run)).toEqual({ charge: {}, mail: { [step]: 1 } });
  });

  it('delivers, and answers 451 all the same, at an error after the effect', async () => {
    await client.script({ run, service: 'mail', steps: ['error_after_effect'] });
    await expect(send()).rejects.toMatchObject({ responseCode: 451 });
    expect(await delivered()).toHaveLength(1);
  });

  it('delivers, and breaks the connection off, when the answer is lost', async () => {
    await client.script({ run, service: 'mail', steps: ['answer_lost'] });
    const error: unknown = await send().catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: expect.stringMatching(/^(ECONNECTION|ESOCKET)$/) });
    expect(error).not.toHaveProperty('responseCode');
    expect(await delivered()).toHaveLength(1);
  });

  it('delivers at once and answers after a while when slow', async () => {
    await client.script({ run, service: 'mail', steps: ['slow'], slowMs: 200 });
    const sending = send();
    await expect.poll(delivered).toHaveLength(1);
    expect((await sending).response).toContain('250');
  });

  it('delivers and never answers when it hangs', async () => {
    await client.script({ run, service: 'mail', steps: ['hang'] });
    await expect(send('customer@acme.test', 300)).rejects.toMatchObject({ code: 'ETIMEDOUT' });
    expect(await delivered()).toHaveLength(1);
  });

  it('delivers late, though the client has gone', async () => {
    await client.script({ run, service: 'mail', steps: ['late'], slowMs: 600 });
    await expect(send('customer@acme.test', 300)).rejects.toMatchObject({ code: 'ETIMEDOUT' });
    expect(await delivered()).toEqual([]);
    await expect.poll(delivered, { timeout: 3_000 }).toHaveLength(1);
  });
});
