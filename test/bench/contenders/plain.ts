import { Queue, Worker } from 'bullmq';
import { Column, DataSource, Entity, PrimaryColumn } from 'typeorm';
import {
  chunks,
  type Contender,
  handle,
  KEEP_NOTHING,
  type Lane,
  payloadOf,
  QUEUE,
  type Site,
} from '../lane.js';

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
    const lane = await openPlain(site, concurrency, async (jobId) => {
      const found = await processed.findOneBy({ id: jobId });
      if (found !== null) return found.result;
      const result = await handle();
      await processed.save({ id: jobId, result });
      return result;
    });
    return {
      ...lane,
      async close() {
        await lane.close();
        await dataSource.destroy();
      },
    };
  },
};

async function openPlain(
  { connection, prefix }: Site,
  concurrency: number,
  process: (jobId: string) => Promise<unknown>,
): Promise<Lane> {
  const queue = new Queue(QUEUE, { connection, prefix, defaultJobOptions: KEEP_NOTHING });
  const options = { connection, prefix, concurrency, autorun: false };
  const worker = new Worker(QUEUE, (job) => process(job.id as string), options);
  await queue.waitUntilReady();
  return {
    async fill(jobs) {
      for (const chunk of chunks(jobs))
        await queue.addBulk(
          chunk.map((number) => ({
            name: 'charge',
            data: payloadOf(number),
            opts: { jobId: `charge-${number}` },
          })),
        );
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
