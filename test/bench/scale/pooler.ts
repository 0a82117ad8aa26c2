import { HAS_PGBOUNCER, startPgBouncer } from '../../support/pgbouncer.js';
import { median } from '../comparison.js';
import type { Site } from '../contender.js';
import type { Servers } from '../servers.js';
import { type Drained, drain } from './drain.js';
import { compared, type Figure, type Question } from './question.js';
import { openScaleApp, type ScaleApp } from './scale-app.js';

const ROUNDS = 3;
const CONCURRENCY = 20;

/**
 * The same jobs straight and by way of PgBouncer. In transaction mode only the application's connections go through it,
 * which the library uses for transactional handlers; its own lead around it.
 */
export const pooler: Question = {
  name: 'pooler',
  asks: 'what does PgBouncer cost?',
  sizes: { usual: 4000, full: 20_000 },
  async answer(servers, size) {
    if (!HAS_PGBOUNCER) return [];
    const straight = await siteOf(servers);
    const { hostname: host, port } = new URL(straight.databaseUrl);
    const around = { host, port: Number(port) };
    const inTransactions = await startPgBouncer(straight.databaseUrl, 'transaction');
    const inSessions = await startPgBouncer(straight.databaseUrl, 'session');
    const through = (url: string): Promise<Site> =>
      siteOf(servers).then((site) => ({
        ...site,
        databaseUrl: `${url.replace(/[^/]*$/, '')}${site.prefix}`,
      }));
    const variants = [
      { name: 'transactional, straight', site: straight, effect: 'transactional' },
      {
        name: 'transactional, transaction mode',
        site: await through(inTransactions.url),
        effect: 'transactional',
        around,
      },
      { name: 'keyed, straight', site: await siteOf(servers), effect: 'keyed' },
      { name: 'keyed, session mode', site: await through(inSessions.url), effect: 'keyed' },
    ] as const;
    const opened: ScaleApp[] = [];
    for (const { site, ...options } of variants)
      opened.push(await openScaleApp(site, { concurrency: CONCURRENCY, ...options }));
    const turns = variants.map((): Drained[] => []);
    let next = 0;
    for (let round = 0; round < ROUNDS; round += 1)
      for (const [index, app] of opened.entries()) {
        const numbers = Array.from({ length: size }, () => next++);
        const fill = (): Promise<void> => app.enqueue(numbers, 'queue');
        turns[index]?.push(await drain(servers, app, { jobs: size, concurrency: CONCURRENCY, fill }));
      }
    for (const { app } of opened) await app.close();
    await inTransactions.stop();
    await inSessions.stop();
    return [
      ...figuresOf(variants[1].name, turns[1] ?? [], turns[0] ?? []),
      ...figuresOf(variants[3].name, turns[3] ?? [], turns[2] ?? []),
    ];
  },
};

function siteOf(servers: Servers): Promise<Site> {
  return servers.makeSite(servers.backends[0] as 'redis' | 'postgres');
}

function figuresOf(name: string, turns: readonly Drained[], base: readonly Drained[]): Figure[] {
  const speed = (of: readonly Drained[]): number => median(of.map(({ jobsPerSecond }) => jobsPerSecond));
  const least = (of: readonly Drained[], server: 'node' | 'postgres'): number =>
    Math.min(...of.map(({ cpu }) => cpu[server] ?? NaN));
  return [
    compared(name, 'jobs/s', speed(turns), speed(base), 'straight'),
    compared(`… Node's CPU`, 'µs/job', least(turns, 'node'), least(base, 'node'), 'straight'),
    compared(`… Postgres's CPU`, 'µs/job', least(turns, 'postgres'), least(base, 'postgres'), 'straight'),
  ];
}
