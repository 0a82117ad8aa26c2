import type { Job } from 'bullmq';
import { describe, expect, it } from 'vitest';
import type { QueuePort } from '../../bullmq/queue-port.js';
import type { LetterStore } from '../../dead-letters/letter.store.js';
import type { ProcessorRules } from '../rules/operation-rules.js';
import { jobIdOf } from '../../operation/identity.js';
import { RecordUnreadableError } from '../../operation/errors.js';
import type { ProcessorHost } from '../host/processor-host.js';
import type { LibraryLog } from '../../events/library-log.js';
import type { EndedJobSweep } from './ended-job.sweep.js';
import { FailedJobSweep } from './failed-job.sweep.js';

const idOf = (operationKey: string): string => jobIdOf({ tenantId: 'acme', operationKey });

function failed(operationKey: string): Job {
  const operation = { tenantId: 'acme', operationKey, fingerprint: 'f' };
  const payload = { $encrypted: 1, key: 'k1', iv: '', data: '' };
  return {
    id: idOf(operationKey),
    name: 'charge',
    queueName: 'charges',
    data: { operation, payload },
    failedReason: 'job stalled more than allowable limit',
    stalledCounter: 2,
  } as unknown as Job;
}

describe('FailedJobSweep', () => {
  it('leaves a job whose payload cannot be read for later, and buries the others', async () => {
    const jobs = [failed('1'), failed('2')];
    const asked: (string | undefined)[] = [];
    const buried: string[] = [];
    const errors: string[] = [];
    const letters = {
      accountedFor: (_queue: string, found: { identity: { operationKey: string } | undefined }[]) => {
        asked.push(...found.map(({ identity }) => identity?.operationKey));
        return Promise.resolve(new Set<string>());
      },
    } as unknown as LetterStore;
    const port = {
      name: 'charges',
      contents: { failed: () => Promise.resolve(jobs) },
    } as unknown as QueuePort;
    const settings = { queue: 'charges' } as ProcessorRules;
    const bury = (_settings: unknown, { id }: Job): Promise<void> => {
      if (id === idOf('1'))
        return Promise.reject(
          new RecordUnreadableError(
            { tenantId: 'acme', operationKey: '1', kind: 'payload' },
            'k1',
            'no_keys',
          ),
        );
      buried.push(id as string);
      return Promise.resolve();
    };
    const sweep = new FailedJobSweep(
      letters,
      { writeUnprocessed: bury } as unknown as ProcessorHost,
      { sweep: async () => undefined } as unknown as EndedJobSweep,
      { trouble: (message) => void errors.push(message) } as LibraryLog,
    );
    await sweep.sweep([{ port, rules: settings }]);
    expect(asked).toEqual(['1', '2']);
    expect(buried).toEqual([idOf('2')]);
    expect(errors).toEqual([`Job ${idOf('1')} of queue "charges" has no dead letter yet`]);
  });
});
