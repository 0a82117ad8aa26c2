import { readdirSync, readFileSync } from 'node:fs';

/** CPU time in µs since some time before. */
export interface ProcessorTime {
  readonly node: number;
  /** Of the server and its sessions. Undefined where it cannot be read. */
  readonly postgres: number | undefined;
  readonly redis: number | undefined;
}

/** The servers that run here. Those that run elsewhere have no process id. */
export interface ServerPids {
  readonly postgres: number | undefined;
  readonly redis: number | undefined;
}

/** How much CPU time this process and its servers have taken so far. Reads Linux's `/proc`; elsewhere, of servers nothing. */
export function processorTime({ postgres, redis }: ServerPids): ProcessorTime {
  const { user, system } = process.cpuUsage();
  return { node: user + system, postgres: ofServer(postgres), redis: ofServer(redis) };
}

/** What was taken between two readings, for each job. */
export function perJob(from: ProcessorTime, to: ProcessorTime, jobs: number): ProcessorTime {
  const each = (before: number | undefined, after: number | undefined): number | undefined =>
    before === undefined || after === undefined ? undefined : (after - before) / jobs;
  return {
    node: (to.node - from.node) / jobs,
    postgres: each(from.postgres, to.postgres),
    redis: each(from.redis, to.redis),
  };
}

/** A server with its child processes, which are Postgres's sessions; those that have ended, to a hundredth of a second. */
function ofServer(pid: number | undefined): number | undefined {
  if (pid === undefined) return undefined;
  try {
    const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && isOf(pid, name));
    return pids.reduce((sum, name) => sum + runUs(name), endedUs(pid));
  } catch {
    return undefined;
  }
}

/** What children that are gone have taken in user and in kernel mode: in ticks, of which Linux counts 100 a second. */
function endedUs(server: number): number {
  const fields = read(`/proc/${server}/stat`)?.split(') ').at(-1)?.split(' ') ?? [];
  return (Number(fields[13] ?? 0) + Number(fields[14] ?? 0)) * 10_000;
}

function isOf(server: number, pid: string): boolean {
  if (pid === String(server)) return true;
  // The name of the program, in parentheses, may have spaces; the parent is the second field after it.
  const parent = read(`/proc/${pid}/stat`)?.split(') ').at(-1)?.split(' ')[1];
  return parent === String(server);
}

/** Its first field is the time on the processor, in ns. */
function runUs(pid: string): number {
  return Number(read(`/proc/${pid}/schedstat`)?.split(' ')[0] ?? 0) / 1000;
}

function read(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}
