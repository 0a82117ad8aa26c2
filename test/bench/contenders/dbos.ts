import { DBOS } from '@dbos-inc/dbos-sdk';
import {
  chunks,
  type Contender,
  Countdown,
  handle,
  type OpenContender,
  payloadOf,
  QUEUE,
  type Site,
} from '../contender.js';
import { untilNoRow } from './until-no-row.js';

/*
 * DBOS 5.3: a workflow on a queue, with as many at once as everywhere here (`workerConcurrency`).
 *
 * What its result is worth, read in `dist/src/system_database.js` of the installed package:
 *
 * - A result is stored per workflow, in `dbos.workflow_output`, and of each step in `dbos.operation_outputs`. A second start
 *   under the same workflow id returns the recorded result (ON CONFLICT (workflow_uuid)). Rows stay until the application
 *   deletes them, or the retention of DBOS's control plane does.
 * - A retry after a crash is fenced: a claim writes a new `owner_xid`, and an outcome or a step is written only by its owner
 *   (`#recordWorkflowOutcome`, `#checkOwner`).
 * - A workflow can run twice: it is put on its queue again when its executor starts again under the same id, or when
 *   somebody says that the executor is gone. It then runs from the top, and steps that were recorded are not run. A step that
 *   was not recorded runs again. There is no lease: nobody takes over from an executor that stays away.
 * - Isolation: read committed transactions, one for each outcome; workflows are claimed with FOR UPDATE SKIP LOCKED, or
 *   repeatable read and NOWAIT where a limit is shared among processes.
 */

/** The workflow is the handler: what is recorded is a claim and an outcome, as by this library. */
export const dbos: Contender = {
  name: 'dbos',
  open: (site, concurrency) => openDbos(site, concurrency, handle),
};

/** The handler is a step of the workflow, as DBOS asks for whatever has an effect: a record more. */
export const dbosStep: Contender = {
  name: 'dbosStep',
  open: (site, concurrency) => openDbos(site, concurrency, () => DBOS.runStep(handle, { name: 'charge' })),
};

async function openDbos(
  { databaseUrl }: Site,
  concurrency: number,
  work: () => Promise<{ ok: true }>,
): Promise<OpenContender> {
  let countdown: Countdown | undefined;
  DBOS.setConfig({
    name: 'bench',
    systemDatabaseUrl: databaseUrl,
    logLevel: 'error',
    systemDatabasePoolSize: 20,
  });
  DBOS.registerWorkflow(
    async (_payload: object) => {
      const result = await work();
      countdown?.count();
      return result;
    },
    { name: 'charge' },
  );
  await DBOS.launch();
  return {
    async fill(jobs) {
      for (const chunk of chunks(jobs, 100))
        await Promise.all(
          chunk.map((number) =>
            DBOS.enqueueWorkflowWithOptions(
              { queueName: QUEUE, workflowName: 'charge', workflowID: `charge:${number}` },
              payloadOf(number),
            ),
          ),
        );
    },
    async drain(given) {
      countdown = given;
      await DBOS.registerQueue(QUEUE, {
        workerConcurrency: concurrency,
        minPollingIntervalMs: POLLING_MS,
      });
      await countdown.over;
      await untilNoRow(databaseUrl, `dbos.workflow_status WHERE status <> 'SUCCESS'`);
    },
    close: () => DBOS.shutdown({ deregister: true }),
  };
}

/** A queue with a limit starts what fits at each poll. At the default of a second that would be 50 jobs a second. */
const POLLING_MS = 5;
