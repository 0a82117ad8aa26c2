import { afterEach, describe, expect, it, vi } from 'vitest';
import { settingsFrom } from './settings.js';

const REQUIRED = {
  DATABASE_URL: 'postgres://localhost/shop',
  GATEWAY_URL: 'http://localhost:4000',
  SMTP_URL: 'smtp://localhost:2525',
};

describe('a variable that is set to nothing', () => {
  afterEach(() => void vi.unstubAllEnvs());

  it('counts as not set among the settings', () => {
    const empty = Object.fromEntries(
      ['REDIS_URL', 'QUEUE_BACKEND', 'ROLE', 'LEASE_MS', 'MAIL_BY', 'LOGS'].map((name) => [name, '']),
    );
    const { workerName: _, ...settings } = settingsFrom({ ...REQUIRED, ...empty });
    const { workerName: __, ...expected } = settingsFrom(REQUIRED);
    expect(settings).toEqual(expected);
    expect(settings).toMatchObject({ queueBackend: 'postgres', redisUrl: undefined });
  });

  it('is missing where it is required', () => {
    expect(() => settingsFrom({ ...REQUIRED, DATABASE_URL: '' })).toThrow(/DATABASE_URL is missing/);
  });

  it('counts as not set where the pace is read', async () => {
    for (const name of ['CONCURRENCY', 'LOCK_MS', 'CIRCUIT_OPEN_MS', 'RECONCILE_AFTER_MS'])
      vi.stubEnv(name, '');
    const { PACE, QUESTIONS } = await import('./pace.js');
    expect(PACE).toMatchObject({ concurrency: 10, lockDuration: 30_000 });
    expect(QUESTIONS).not.toHaveProperty('afterMs');
  });
});
