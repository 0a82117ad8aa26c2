import { setTimeout } from 'node:timers/promises';
import { Client } from 'pg';
import { TrafficMeter } from '../traffic.js';

/** Waits until Postgres has no row like that: `from` is what follows FROM. Handlers are through before their results are. */
export async function untilNoRow(databaseUrl: string, from: string, everyMs = 5): Promise<void> {
  const client = new Client({ connectionString: databaseUrl });
  TrafficMeter.leaveOut(client);
  await client.connect();
  try {
    const isThere = async (): Promise<boolean> =>
      (await client.query<{ any: boolean }>(`SELECT EXISTS (SELECT FROM ${from}) AS any`)).rows[0]?.any ??
      false;
    while (await isThere()) await setTimeout(everyMs);
  } finally {
    await client.end();
  }
}
