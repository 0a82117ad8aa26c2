import { numberOf, variable } from './environment.js';

/** What this process does: serve HTTP (`api`), run jobs (`worker`), or both. */
export type Role = 'all' | 'api' | 'worker';

/** Where BullMQ keeps its queues. */
export type QueueBackend = 'postgres' | 'redis';

/** How cards are charged, by what the gateway offers when the outcome of a charge is not known. */
export type ChargeBy = 'key' | 'look-up' | 'neither';

/** How receipts are mailed, by whether the mailbox can be looked up. */
export type MailBy = 'look-up' | 'neither';

/** Everything that differs between deployments of this application. Injectable by its class. */
export abstract class Settings {
  abstract readonly role: Role;
  /** Postgres: orders, stock and the ledger of jobs. */
  abstract readonly databaseUrl: string;
  abstract readonly queueBackend: QueueBackend;
  /** Only for the backend `redis`. */
  abstract readonly redisUrl: string | undefined;
  /** Keeps applications that share a Redis apart. Default: `payments`. */
  abstract readonly queuePrefix: string;
  /** The payment gateway, e.g. `https://gateway.example`. */
  abstract readonly gatewayUrl: string;
  /**
   * Whether the gateway honours idempotency keys (`key`), only finds charges by them (`look-up`), or neither. Default:
   * `key`.
   */
  abstract readonly chargeBy: ChargeBy;
  /** How long the gateway may take to answer, in milliseconds. Default: 5,000. */
  abstract readonly gatewayTimeoutMs: number;
  /** The mail server, e.g. `smtp://mail.example`. */
  abstract readonly smtpUrl: string;
  /** Whether mails that were sent can be looked up. Default: `neither`. */
  abstract readonly mailBy: MailBy;
  /** Where sent mails are looked up, e.g. `https://mail.example`. Only for `mailBy: 'look-up'`. */
  abstract readonly mailboxUrl: string | undefined;
  /** How long the lease of a worker that has vanished lasts, in milliseconds. Default: 30,000. */
  abstract readonly leaseMs: number;
  /**
   * After how long a job that has not ended is put on its queue again, in case the queue has lost it, in milliseconds.
   * Default: 15 minutes.
   */
  abstract readonly redispatchAfterMs: number;
  /** This worker's name in requests to the gateway and the mail server. */
  abstract readonly workerName: string;
  abstract readonly logs: 'all' | 'problems' | 'none';
}

/**
 * Reads the settings from environment variables.
 *
 * @throws Error that names every variable that is missing or wrong
 */
export function settingsFrom(env: NodeJS.ProcessEnv): Settings {
  const problems: string[] = [];
  const required = (name: string, example: string): string => {
    const value = variable(name, env);
    if (value === undefined) problems.push(`${name} is missing, e.g. ${example}`);
    return value ?? '';
  };
  const oneOf = <T extends string>(name: string, allowed: readonly T[], fallback: T): T => {
    const value = variable(name, env) ?? fallback;
    if (!allowed.includes(value as T)) problems.push(`${name} is "${value}", not ${allowed.join(' or ')}`);
    return value as T;
  };
  const milliseconds = (name: string, fallback: number): number => {
    const value = numberOf(name, fallback, env);
    if (!(value > 0)) problems.push(`${name} is "${env[name]}", not a number of milliseconds`);
    return value;
  };
  const usualBackend = variable('REDIS_URL', env) === undefined ? 'postgres' : 'redis';
  const queueBackend = oneOf('QUEUE_BACKEND', ['postgres', 'redis'], usualBackend);
  const mailBy = oneOf('MAIL_BY', ['look-up', 'neither'], 'neither');
  const settings: Settings = {
    role: oneOf('ROLE', ['all', 'api', 'worker'], 'all'),
    databaseUrl: required('DATABASE_URL', 'postgres://user@localhost:5432/shop'),
    queueBackend,
    redisUrl: queueBackend === 'redis' ? required('REDIS_URL', 'redis://localhost:6379') : undefined,
    queuePrefix: variable('QUEUE_PREFIX', env) ?? 'payments',
    gatewayUrl: required('GATEWAY_URL', 'http://localhost:4000'),
    chargeBy: oneOf('CHARGE_BY', ['key', 'look-up', 'neither'], 'key'),
    gatewayTimeoutMs: milliseconds('GATEWAY_TIMEOUT_MS', 5_000),
    smtpUrl: required('SMTP_URL', 'smtp://localhost:2525'),
    mailBy,
    mailboxUrl: mailBy === 'look-up' ? required('MAILBOX_URL', 'http://localhost:4000') : undefined,
    leaseMs: milliseconds('LEASE_MS', 30_000),
    redispatchAfterMs: milliseconds('REDISPATCH_MS', 15 * 60_000),
    workerName: variable('WORKER_NAME', env) ?? `payments-${process.pid}`,
    logs: oneOf('LOGS', ['all', 'problems', 'none'], 'all'),
  };
  if (problems.length > 0) throw new Error(`The environment is incomplete:\n  ${problems.join('\n  ')}`);
  return settings;
}
