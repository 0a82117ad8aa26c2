import { Queue, Worker } from 'bullmq';
import { Pool } from 'pg';
import { Column, DataSource, Entity, PrimaryColumn } from 'typeorm';
import { makeEffects, writeEffect } from './effects.js';
import {
  chunks,
  type Contender,
  handle,
  FORGET_COMPLETED,
  type OpenContender,
  payloadOf,
  QUEUE,
  type Site,
} from '../contender.js';

/** BullMQ alone. */
export const bullmq: Contender = {
  name: 'bullmq',
  open: (site, concurrency) => openPlain(site, concurrency, handle),
};

@Entity('processed_jobs')
class ProcessedJob {
  @PrimaryColumn({ type: 'text' })
  id!: string;

  @Column({ type: 'json', nullable: true })
  result!: unknown;
}

/** The usual "safer version": find by job id, run, save. */
export const findThenSave: Contender = {
  name: 'findThenSave',
  async open(site, concurrency) {
    const dataSource = await new DataSource({
      type: 'postgres',
      url: site.databaseUrl,
      entities: [ProcessedJob],
      synchronize: true,
    }).initialize();
    const processed = dataSource.getRepository(ProcessedJob);
    const opened = await openPlain(site, concurrency, async (jobId) => {
      const found = await processed.findOneBy({ id: jobId });
      if (found !== null) return found.result;
      const result = await handle();
      await processed.save({ id: jobId, result });
      return result;
    });
    return {
      ...opened,
      async close() {
        await opened.close();
        await dataSource.destroy();
      },
    };
  },
};

/** The least that a handler with a transaction costs: BullMQ, and a transaction that writes a row. */
export const bareTransaction: Contender = {
  name: 'bareTransaction',
  async open(site, concurrency) {
    await makeEffects(site);
    // Ten connections by default, as in TypeORM's pool, of which the library takes six for handlers' transactions.
    const pool = new Pool({ connectionString: site.databaseUrl });
    const opened = await openPlain(site, concurrency, async () => {
      const client = await pool.connect();
      try {
        await client.query('BEGIN');
        const result = await writeEffect(client);
        await client.query('COMMIT');
        return result;
      } finally {
        client.release();
      }
    });
    return {
      ...opened,
      async close() {
        await opened.close();
        await pool.end();
      },
    };
  },
};

/** BullMQ's `addBulk()`. Only adding is measured, and nothing is worked off. */
export const addBulk: Contender = {
  name: 'addBulk',
  async open({ connection, prefix }) {
    const queue = new Queue(QUEUE, { connection, prefix, defaultJobOptions: FORGET_COMPLETED });
    await queue.waitUntilReady();
    let jobs = 0;
    return {
      fill: async (count) => void (jobs = count),
      async drain(countdown) {
        for (const chunk of chunks(jobs)) {
          await queue.addBulk(chunk.map(jobOf));
          for (const _job of chunk) countdown.count();
        }
      },
      close: () => queue.close(),
    };
  },
};

const jobOf = (number: number) => ({
  name: 'charge',
  data: payloadOf(number),
  opts: { jobId: `charge-${number}` },
});

async function openPlain(
  { connection, prefix }: Site,
  concurrency: number,
  process: (jobId: string) => Promise<unknown>,
): Promise<OpenContender> {
  const queue = new Queue(QUEUE, { connection, prefix, defaultJobOptions: FORGET_COMPLETED });
  const options = { connection, prefix, concurrency, autorun: false };
  const worker = new Worker(QUEUE, (job) => process(job.id as string), options);
  await queue.waitUntilReady();
  return {
    async fill(jobs) {
      for (const chunk of chunks(jobs)) await queue.addBulk(chunk.map(jobOf));
    },
    drain(countdown) {
      worker.on('completed', () => countdown.count());
      worker.run().catch((error: unknown) => countdown.fail(error));
      return countdown.over;
    },
    async close() {
      await worker.close();
      await queue.close();
    },
  };
}
