import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { IdempotentJobsHealthIndicator, PermanentError } from 'nestjs-idempotent-jobs';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, enqueue, settled } from '../support/ledger.js';
import type { Place } from '../support/place.js';
import { processorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf, makePlace } from '../support/scenario.js';

/** A connection to a server that can fall silent: it stays open, and nothing comes through. */
class QuietLine {
  readonly #sockets = new Set<Socket>();
  #isSilent = false;

  private constructor(
    private readonly server: Server,
    /** The server's URL by way of this line. */
    readonly url: string,
  ) {}

  static async to(serverUrl: string): Promise<QuietLine> {
    const target = new URL(serverUrl);
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const url = new URL(serverUrl);
    url.hostname = '127.0.0.1';
    url.port = String((server.address() as AddressInfo).port);
    const line = new QuietLine(server, url.toString());
    server.on('connection', (client) => line.#join(client, connect(Number(target.port), target.hostname)));
    return line;
  }

  silence(): void {
    this.#isSilent = true;
    for (const socket of this.#sockets) socket.pause();
  }

  speak(): void {
    this.#isSilent = false;
    for (const socket of this.#sockets) socket.resume();
  }

  async end(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.server.close(resolve));
  }

  #join(client: Socket, upstream: Socket): void {
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      this.#sockets.add(from);
      from.on('data', (data) => to.write(data));
      from.on('error', () => undefined);
      from.on('close', () => {
        this.#sockets.delete(from);
        to.destroy();
      });
      if (this.#isSilent) from.pause();
    }
  }
}

/** Where the queues of a place are. */
const serverOf = ({ backend, databaseUrl, connection }: Place): string =>
  backend === 'postgres' ? databaseUrl : (connection as { url: string }).url;
const connectionBy = ({ backend, connection }: Place, url: string): object => ({
  ...connection,
  ...(backend === 'postgres' ? { connectionString: url } : { url }),
});

describe.each(BACKENDS)('health, on %s', (backend) => {
  const apps = useApps();
  const fine = processorOf('charges', { effect: 'natural' }, () => 'done');

  it('all is up when jobs run', async () => {
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [fine] });
    const health = app.get(IdempotentJobsHealthIndicator);
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await settled(app, 'charge:1');
    expect(await health.ledger()).toMatchObject({ ledger: { status: 'up', dispatchLagMs: 0 } });
    expect(await health.queue('charges')).toMatchObject({
      charges: { status: 'up', backend, worker: 'running', deadLetters: 0, inDoubt: 0 },
    });
  });

  it('dead letters and operations in doubt degrade their queue, from the threshold on', async () => {
    const processor = processorOf('charges', {}, (job) => {
      throw (job.data as { doubt: boolean }).doubt ? new Error('no answer') : new PermanentError('no');
    });
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    const health = app.get(IdempotentJobsHealthIndicator);
    await enqueue(app, 'charges', 'charge', { doubt: false }, 'charge:1');
    await enqueue(app, 'charges', 'charge', { doubt: true }, 'charge:2');
    await settled(app, 'charge:1');
    await settled(app, 'charge:2');
    expect(await health.queue('charges')).toMatchObject({
      charges: { status: 'degraded', deadLetters: 2, inDoubt: 1 },
    });
    expect(await health.queue('charges', { maxDeadLetters: 2, maxInDoubt: 1 })).toMatchObject({
      charges: { status: 'up' },
    });
  });

  it('a job that waits too long degrades its queue; the oldest one counts', async () => {
    const { app } = await apps.fresh(backend, { queues: ['charges'] });
    const health = app.get(IdempotentJobsHealthIndicator);
    await bullQueue(app, 'charges').add('first', {}, { timestamp: Date.now() - 120_000 });
    await bullQueue(app, 'charges').add('second', {});
    const report = await health.queue('charges');
    expect(report).toMatchObject({ charges: { status: 'degraded', worker: 'none' } });
    expect(
      (report['charges'] as unknown as { oldestWaitingMs: number }).oldestWaitingMs,
    ).toBeGreaterThanOrEqual(119_000);
    expect(await health.queue('charges', { maxWaitMs: 600_000 })).toMatchObject({
      charges: { status: 'up' },
    });
  });

  it('operations that nobody dispatches degrade the ledger', async () => {
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      jobs: { dispatch: { enabled: false } },
    });
    const health = app.get(IdempotentJobsHealthIndicator);
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await eventually(
      () => health.ledger({ maxDispatchLagMs: 50 }),
      (report) => expect(report).toMatchObject({ ledger: { status: 'degraded' } }),
    );
    expect(await health.ledger()).toMatchObject({ ledger: { status: 'up' } });
  });

  it('operations whose queue takes nothing degrade the ledger, although they are tried again and again', async () => {
    const { app } = await apps.fresh(backend, { queues: ['charges'] });
    const health = app.get(IdempotentJobsHealthIndicator);
    bullQueue(app, 'charges').addBulk = () => Promise.reject(new Error('no room'));
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await eventually(
      () => health.ledger({ maxDispatchLagMs: 300 }),
      (report) => expect(report).toMatchObject({ ledger: { status: 'degraded' } }),
    );
  });

  it.each(['ledger', 'queue'] as const)(
    'the %s whose server is silent is down within the timeout, and up when it answers again',
    async (part) => {
      const place = await makePlace(backend);
      const line = await QuietLine.to(part === 'ledger' ? place.databaseUrl : serverOf(place));
      const detour =
        part === 'ledger' ? { databaseUrl: line.url } : { connection: connectionBy(place, line.url) };
      const app = await apps.beside({ ...place, ...detour }, { queues: ['charges'] });
      const health = app.get(IdempotentJobsHealthIndicator);
      const [key, ask] =
        part === 'ledger'
          ? ['ledger', () => health.ledger({ timeoutMs: 300 })]
          : ['charges', () => health.queue('charges', { timeoutMs: 300 })];
      const isUp = (report: object): void => expect(report).toMatchObject({ [key]: { status: 'up' } });
      try {
        await eventually(ask, isUp);
        line.silence();
        const askedAt = performance.now();
        expect(await ask()).toMatchObject({
          [key]: { status: 'down', message: expect.stringContaining('did not answer within 300 ms') },
        });
        expect(performance.now() - askedAt).toBeLessThan(2000);
        line.speak();
        await eventually(ask, isUp);
      } finally {
        line.speak();
        await apps.close(app);
        await line.end();
      }
    },
  );

  it('a schema that is not there, a stopped worker and an unknown queue are down', async () => {
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [fine] });
    const health = app.get(IdempotentJobsHealthIndicator);
    await app.get<{ worker: { close(): Promise<void> } }>(fine).worker.close();
    expect(await health.queue('charges')).toMatchObject({ charges: { status: 'down', worker: 'stopped' } });
    expect(await health.queue('refunds')).toMatchObject({ refunds: { status: 'down' } });
    await dataSourceOf(app).query('DROP TABLE idempotent_jobs_schema');
    expect(await health.ledger()).toMatchObject({ ledger: { status: 'down' } });
  });
});
