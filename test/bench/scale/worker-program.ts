import { selectBackendByConnection } from 'nestjs-idempotent-jobs';
import type { Site } from '../contender.js';
import { openScaleApp, type ScaleAppOptions } from './scale-app.js';
import type { FromWorker, ToWorker } from './worker-process.js';

/*
 * A process of its own with one application. It begins to work when it is told to, says how many jobs it has done, and what
 * it has used when it is asked.
 */

selectBackendByConnection();
const [site, options] = JSON.parse(process.argv[2] as string) as [Site, ScaleAppOptions];
const opened = await openScaleApp(site, options);
const { app } = opened;
const worker = options.concurrency === undefined ? undefined : opened.worker;
let done = 0;

process.on('message', (message: ToWorker) => {
  if (message.say === 'run') {
    worker?.on('completed', () => (done += 1));
    worker?.run().catch((error: unknown) => console.error(error));
    setInterval(() => tell({ kind: 'done', jobs: done }), 10);
  } else if (message.say === 'stop') void app.close().then(() => process.exit());
  else tellUsage(message.say === 'usageAfterGc');
});
tell({ kind: 'ready' });

function tellUsage(afterGc: boolean): void {
  const { user, system } = process.cpuUsage();
  const maxRssBytes = process.resourceUsage().maxRSS * 1024;
  if (afterGc) {
    // Twice: what finalizers of the first round let go of is collected in the second.
    globalThis.gc?.();
    globalThis.gc?.();
  }
  const { rss, heapUsed } = process.memoryUsage();
  tell({ kind: 'usage', cpuUs: user + system, rssBytes: rss, maxRssBytes, heapBytes: heapUsed });
}

function tell(message: FromWorker): void {
  process.send?.(message);
}
