import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { inject } from 'vitest';
import { runCli } from '../../libs/idempotent-jobs/dist/operate/cli/run-cli.js';
import type { Place } from './place.js';

/** The built program, as `npx -p nestjs-idempotent-jobs idempotent-jobs` starts it. */
const PROGRAM = fileURLToPath(
  new URL('../../libs/idempotent-jobs/bin/nestjs-idempotent-jobs.mjs', import.meta.url),
);

/** How a call of the command line ended. */
export interface CliAnswer {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Calls the command line, with nothing in its environment but what is given. */
export async function cli(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<CliAnswer> {
  let [stdout, stderr] = ['', ''];
  const code = await runCli(args, env, {
    out: (text) => (stdout += `${text}\n`),
    err: (text) => (stderr += `${text}\n`),
  });
  return { code, stdout, stderr };
}

/** As {@link cli}, in a process of its own: for how it starts, ends and exits. */
export function cliProcess(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<CliAnswer> {
  return new Promise((resolve) => {
    const options = { env: { PATH: process.env['PATH'], ...env }, timeout: 40_000 };
    const child = execFile(process.execPath, [PROGRAM, ...args], options, (_error, stdout, stderr) =>
      resolve({ code: child.exitCode ?? -1, stdout, stderr }),
    );
  });
}

/** Calls it for a place, as somebody on call would. */
export function cliIn(place: Place, ...args: string[]): Promise<CliAnswer> {
  const isOnRedis = place.backend === 'redis';
  return cli(isOnRedis ? [...args, '--prefix', place.prefix] : args, {
    DATABASE_URL: place.databaseUrl,
    ...(isOnRedis && { REDIS_URL: inject('redisUrl') }),
  });
}

/** What a call with `--json` said; it must have said nothing else. */
export function jsonOf({ stdout }: CliAnswer): any {
  return JSON.parse(stdout);
}
