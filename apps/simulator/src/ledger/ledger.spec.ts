import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Arrival } from './ledger-entry.js';
import { Ledger } from './ledger.js';

function arrival(run: string, subject: string): Arrival {
  return {
    run,
    service: 'charge',
    effect: true,
    outcome: 'done',
    fault: null,
    tenant: 'acme',
    claimedTenant: 'acme',
    key: subject,
    subject,
    ordinal: 1,
    payloadHash: 'hash',
    attempt: 1,
    fencingToken: 1,
    worker: null,
  };
}

describe('Ledger', () => {
  let directory: string;
  let path: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'ledger-spec-'));
    path = join(directory, 'ledger.jsonl');
  });
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  const lines = () => readFileSync(path, 'utf8').split('\n').slice(0, -1);

  it('has an entry in its file by the time that append resolves', async () => {
    const ledger = await Ledger.open(path);
    const entry = await ledger.append(arrival('r', 'order-1'));
    expect(lines().map((line) => JSON.parse(line))).toEqual([entry]);
    await ledger.close();
  });

  it('numbers arrivals that come all at once without a gap, and writes each of them once', async () => {
    const ledger = await Ledger.open(path);
    const entries = await Promise.all(
      Array.from({ length: 500 }, (_, index) => ledger.append(arrival('r', `order-${index}`))),
    );
    const numbers = Array.from({ length: 500 }, (_, index) => index + 1);
    expect(entries.map(({ number }) => number)).toEqual(numbers);
    expect(lines().map((line) => JSON.parse(line).number)).toEqual(numbers);
    await ledger.close();
  });

  it('shows a run nothing of another run', async () => {
    const ledger = await Ledger.open(path);
    await ledger.append(arrival('one', 'order-1'));
    await ledger.append(arrival('other', 'order-2'));
    expect(ledger.entries('one').map(({ subject }) => subject)).toEqual(['order-1']);
    expect(ledger.entries().map(({ subject }) => subject)).toEqual(['order-1', 'order-2']);
    await ledger.close();
  });

  it('goes on after a restart, without the runs that were reset', async () => {
    const first = await Ledger.open(path);
    await first.append(arrival('kept', 'order-1'));
    await first.append(arrival('forgotten', 'order-2'));
    await first.reset('forgotten');
    await first.close();

    const second = await Ledger.open(path);
    expect(second.entries().map(({ subject }) => subject)).toEqual(['order-1']);
    expect((await second.append(arrival('kept', 'order-3'))).number).toBe(3);
    await second.close();
  });

  it('cuts off a last line that a crash tore, and goes on behind it', async () => {
    const first = await Ledger.open(path);
    await first.append(arrival('r', 'naïve'));
    await first.close();
    appendFileSync(path, '{"number":2,"run":"r","subj');

    const second = await Ledger.open(path);
    await second.append(arrival('r', 'order-2'));
    await second.close();
    expect(lines().map((line) => JSON.parse(line).subject)).toEqual(['naïve', 'order-2']);
  });

  it('refuses a file that is damaged in the middle', async () => {
    writeFileSync(path, 'no JSON\n{}\n');
    await expect(Ledger.open(path)).rejects.toThrow(/Line 1 of the ledger .* is damaged/);
  });
});
