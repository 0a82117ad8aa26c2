import { RetentionService } from 'nestjs-idempotent-jobs/operate';
import { median } from '../comparison.js';
import { type Drained, drain } from './drain.js';
import { alone, compared, type Question } from './question.js';
import { openScaleApp } from './scale-app.js';
import { copyUntil } from './settled-rows.js';

/** Jobs of a turn. */
const JOBS = 4000;
/** Turns before pruning, and as many after it: what they have in common is the machine, what is in between is not. */
const QUIET_TURNS = 3;

/** Claims while rows past their retention are deleted, by the process that claims. */
export const pruning: Question = {
  name: 'pruning',
  asks: 'how much slower are claims while rows are pruned?',
  sizes: { usual: 1_000_000, full: 1_000_000 },
  async answer(servers, size) {
    const site = await servers.makeSite(servers.backends[0] as 'redis' | 'postgres');
    const app = await openScaleApp(site, { concurrency: 50 });
    let next = size + 1;
    const turn = (jobs = JOBS): Promise<Drained> => {
      const numbers = Array.from({ length: jobs }, () => next++);
      return drain(servers, app, { jobs, concurrency: 50, fill: () => app.enqueue(numbers, 'queue') });
    };
    await drain(servers, app, { jobs: 1, concurrency: 1, fill: () => app.enqueue([0], 'queue') });
    await copyUntil(site, size, LONG_AGO);

    const quiet: Drained[] = [];
    for (let count = 0; count < QUIET_TURNS; count += 1) quiet.push(await turn());

    const startedAt = performance.now();
    const pruned = app.app
      .get(RetentionService)
      .prune()
      .then(({ operations }) => ({ operations, seconds: (performance.now() - startedAt) / 1000 }));
    const isOver = async (): Promise<boolean> =>
      (await Promise.race([pruned, Promise.resolve(undefined)])) !== undefined;
    const busy: Drained[] = [];
    while (!(await isOver())) {
      const drained = await turn();
      // A turn that pruning left halfway says nothing.
      if (!(await isOver()) || busy.length === 0) busy.push(drained);
    }
    const { operations, seconds } = await pruned;

    for (let count = 0; count < QUIET_TURNS; count += 1) quiet.push(await turn());
    await app.app.close();
    const speed = (turns: readonly Drained[]): number =>
      median(turns.map(({ jobsPerSecond }) => jobsPerSecond));
    return [
      compared('claims while rows are pruned', 'jobs/s', speed(busy), speed(quiet), 'before and after'),
      alone('turns that were measured while rows were pruned', '', busy.length),
      alone('rows pruned', '', operations),
      alone('rows pruned per second, while jobs run', 'rows/s', operations / seconds),
    ];
  },
};

/** Past any retention. */
const LONG_AGO = {
  created_at: `now() - interval '30 days'`,
  started_at: `now() - interval '30 days'`,
  settled_at: `now() - interval '30 days'`,
  repeatable_until: `now() - interval '29 days'`,
  expires_at: `now() - interval '23 days'`,
};
