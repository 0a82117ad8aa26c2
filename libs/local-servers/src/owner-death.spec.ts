import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { isRedisInstalled } from './redis/start-redis.js';

/** Starts servers with the built package, says their process ids, and then does what `ending` says. */
const ownerScript = (start: string, ending: string) => `
  import { ${start} } from '${new URL('../dist/index.js', import.meta.url).href}';
  const started = await ${start}();
  console.log((started.masters ?? [started]).map(({ pid }) => pid).join(' '));
  ${ending}`;

const servers = ['startPostgres', ...(isRedisInstalled() ? ['startRedis', 'startRedisCluster'] : [])];

describe('when the owner of a server dies', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'owner-death-'));
    // Postgres runs as another user when the tests run as root.
    chmodSync(directory, 0o755);
  });
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  it.each(
    servers.flatMap((start) => [
      { start, how: 'is killed with SIGKILL', ending: `process.kill(process.pid, 'SIGKILL')` },
      {
        start,
        how: 'is ended with SIGINT',
        ending: `process.kill(process.pid, 'SIGINT'); await new Promise(() => {})`,
      },
      { start, how: 'throws', ending: `throw new Error('the owner fails on purpose')` },
      { start, how: 'merely ends', ending: '' },
    ]),
  )(
    '$start leaves no process and no file behind when the owner $how',
    async ({ start, ending }) => {
      const owner = spawn(process.execPath, ['--input-type=module', '-e', ownerScript(start, ending)], {
        stdio: ['ignore', 'pipe', 'ignore'],
        env: { ...process.env, TMPDIR: directory },
      });
      const ended = once(owner, 'exit');
      const [line] = (await once(createInterface({ input: owner.stdout }), 'line')) as [string];
      await ended;
      const pids = line.split(' ').map(Number);
      expect(pids.filter((pid) => pid > 0)).toHaveLength(start === 'startRedisCluster' ? 3 : 1);

      const deadline = Date.now() + 10_000;
      let left = remains(pids, directory);
      while (left.length > 0 && Date.now() < deadline) {
        await sleep(20);
        left = remains(pids, directory);
      }
      expect(left).toEqual([]);
    },
    30_000,
  );
});

function remains(pids: readonly number[], directory: string): string[] {
  return [...pids.filter(isRunning).map((pid) => `process ${pid}`), ...readdirSync(directory)];
}

/** A zombie that nobody collects (in a container without an init) is not running. */
function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ');
  } catch {
    return false;
  }
}
