import { PermanentError } from 'nestjs-idempotent-jobs';
import { Client } from 'pg';
import { afterEach, describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, enqueue, outcomeOf, settled } from '../support/ledger.js';
import { Gate, processorOf } from '../support/processors.js';
import { BACKENDS } from '../support/scenario.js';

/** Whoever writes how the first operation has ended waits for the lock, in whatever statement. */
const HOLD_THE_OUTCOME = `
  CREATE FUNCTION hold_the_outcome() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$;
  CREATE TRIGGER hold_the_outcome BEFORE UPDATE ON job_outcomes FOR EACH ROW
    WHEN (NEW.operation_key = 'charge:1' AND NEW.status IN ('completed', 'dead'))
    EXECUTE FUNCTION hold_the_outcome()`;

describe.each(BACKENDS)('what BullMQ hears of, on %s', (backend) => {
  const apps = useApps();
  const clients: Client[] = [];
  afterEach(async () => {
    await Promise.all(clients.splice(0).map((client) => client.end()));
  });

  it.each(['completed', 'failed'] as const)(
    'is recorded before: a job is not %s while Postgres has not taken its outcome',
    async (end) => {
      const gate = new Gate();
      const processor = processorOf('charges', { effect: 'natural' }, async (_job, { operationKey }) => {
        if (operationKey === 'charge:1') await gate.pass();
        if (end === 'failed') throw new PermanentError('no such account');
        return operationKey;
      });
      const { app, place } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
      await enqueue(app, 'charges', 'charge', {}, 'charge:1');
      await gate.arrival;
      const rival = new Client({ connectionString: place.databaseUrl });
      clients.push(rival);
      await rival.connect();
      await rival.query(HOLD_THE_OUTCOME);
      await rival.query('SELECT pg_advisory_lock(1)');
      gate.open();
      await eventually(
        () => rival.query(`SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted`),
        ({ rows }) => expect(rows.length).toBeGreaterThan(0),
      );
      // Another job goes all the way meanwhile.
      await enqueue(app, 'charges', 'charge', {}, 'charge:2');
      await settled(app, 'charge:2');
      const stateOf = async (key: string): Promise<string> =>
        bullQueue(app, 'charges').getJobState((await outcomeOf(app, key))?.jobId as string);
      await eventually(
        () => stateOf('charge:2'),
        (state) => expect(state).toBe(end),
      );
      expect(await stateOf('charge:1')).toBe('active');

      await rival.query('SELECT pg_advisory_unlock(1)');
      expect(await settled(app, 'charge:1')).toMatchObject({
        status: end === 'failed' ? 'dead' : 'completed',
      });
      await eventually(
        () => stateOf('charge:1'),
        (state) => expect(state).toBe(end),
      );
    },
  );
});
