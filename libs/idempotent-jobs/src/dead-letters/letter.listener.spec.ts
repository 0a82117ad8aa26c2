import { createSecretKey } from 'node:crypto';
import { createRedisBackend, type Job, Queue, UnrecoverableError } from 'bullmq';
import { describe, expect, it } from 'vitest';
import { QueuePort } from '../bullmq/queue-port.js';
import { letterBinding, Encryption } from '../ledger/encryption/encryption.js';
import { TenantContext } from '../tenancy/tenant-context.js';
import type { DeadLetterWithPayload } from './dead-letter.js';
import type { DeadLetterMessage } from '../operation/dead-letter-message.js';
import { JobEvents } from '../events/job-events.js';
import type { LibraryLog } from '../events/library-log.js';
import type { QueueRegistry } from '../producer/queue-registry.js';
import { type LetterHandler, LetterListener, type NotificationStore } from './letter.listener.js';
import type { LetterQueries } from './letter.queries.js';

const ID = '5f2b0a54-0c6b-4d35-9d0e-3a5a8f6f7c11';

/** A letter as the ledger has it. */
const letter = {
  id: ID,
  reason: 'permanent_error',
  queue: 'charges',
  jobName: 'charge',
  jobId: 'op-1',
  tenantId: 'acme',
  operationKey: 'charge:1',
  attempts: 2,
  error: { name: 'PermanentError', message: 'no such account', stack: 'at bank.ts' },
  payload: { card: '4242' },
  createdAt: new Date(Date.UTC(2026, 0, 1)),
} as unknown as DeadLetterWithPayload;

/** What its handlers are told. */
const news: DeadLetterMessage = {
  letterId: ID,
  reason: 'permanent_error',
  queue: 'charges',
  jobName: 'charge',
  jobId: 'op-1',
  tenantId: 'acme',
  operationKey: 'charge:1',
  attempts: 2,
  error: { name: 'PermanentError', message: 'no such account' },
  payload: { card: '4242' },
  createdAt: '2026-01-01T00:00:00.000Z',
};

const encryption = new Encryption({
  encryption: { keys: new Map([['k1', createSecretKey(Buffer.alloc(32, 1))]]), current: 'k1' },
});

function jobOf(
  data: unknown = { letterId: ID },
  name = 'dead-letter',
): Job & { progress: { told?: string[] } } {
  const job = {
    name,
    data,
    progress: {},
    attemptsMade: 0,
    opts: { attempts: 10 },
    updateProgress(progress: object): Promise<void> {
      job.progress = progress;
      return Promise.resolve();
    },
  };
  return job as unknown as Job & { progress: { told?: string[] } };
}

function listenerOf(...handlers: LetterHandler[]): ReturnType<typeof listenerWith> {
  return listenerWith(letter, handlers);
}

function listenerWith(
  known: DeadLetterWithPayload,
  handlers: LetterHandler[],
): { listener: LetterListener; errors: string[]; dropped: string[] } {
  return listenerOn({ name: 'charges-dlq' } as QueuePort, known, handlers);
}

function listenerOn(
  port: QueuePort,
  known: DeadLetterWithPayload,
  handlers: LetterHandler[],
): { listener: LetterListener; errors: string[]; dropped: string[] } {
  const errors: string[] = [];
  const dropped: string[] = [];
  const events = new JobEvents();
  events.subscribe((event) => event.kind === 'letter_dropped' && dropped.push(event.reason));
  const listener = new LetterListener(
    port,
    (queue) => (queue === 'charges' ? handlers : []),
    { get: async (id: string) => (id === known.id ? known : undefined) } as unknown as LetterQueries,
    { markNotified: async () => undefined } as unknown as NotificationStore,
    { names: ['charges', 'receipts'], deadLetterQueueOf: () => 'charges-dlq' } as unknown as QueueRegistry,
    new TenantContext(),
    encryption,
    events,
    { trouble: (message: string) => errors.push(message) } as unknown as LibraryLog,
  );
  return { listener, errors, dropped };
}

describe('LetterListener.start', () => {
  it('listens where the queue is, also when that has a backend of its own', async () => {
    const made: string[] = [];
    const makeBackend: typeof createRedisBackend = (name, ...rest) => {
      made.push(name);
      return createRedisBackend(name, ...rest);
    };
    // Nobody is there; what is asked is only which backend is made.
    const connection = { host: '127.0.0.1', port: 1, retryStrategy: () => null };
    const queue = new Queue('charges-dlq', { connection, skipMetasUpdate: true }, makeBackend);
    queue.on('error', () => undefined);
    const { listener } = listenerOn(new QueuePort(queue), letter, []);
    listener.start();
    expect(made).toEqual(['charges-dlq', 'charges-dlq']);
    await listener.stop(100, 100);
    await queue.close();
  });
});

describe('LetterListener.tell', () => {
  it('calls every handler with the letter', async () => {
    const seen: unknown[] = [];
    const handler = (name: string): LetterHandler => ({ name, tell: (told) => seen.push([name, told]) });
    await listenerOf(handler('a'), handler('b')).listener.tell(jobOf());
    expect(seen).toEqual([
      ['a', news],
      ['b', news],
    ]);
  });

  it('says of a step whose it is', async () => {
    const seen: DeadLetterMessage[] = [];
    const ofStep = { ...letter, stepOf: 'charge:1', step: 'receipt' };
    await listenerWith(ofStep, [{ name: 'a', tell: (told) => seen.push(told) }]).listener.tell(jobOf());
    expect(seen).toEqual([{ ...news, stepOf: 'charge:1', step: 'receipt' }]);
  });

  it('rejects when a handler fails, and the next time calls only those that failed', async () => {
    const calls: string[] = [];
    let isDown = true;
    const { listener } = listenerOf(
      { name: 'audit', tell: () => calls.push('audit') },
      {
        name: 'pager',
        tell: () => {
          calls.push('pager');
          if (isDown) throw new Error('the pager is down');
        },
      },
    );
    const job = jobOf();
    await expect(listener.tell(job)).rejects.toThrow('pager failed');
    isDown = false;
    await listener.tell(job);
    expect(calls).toEqual(['audit', 'pager', 'pager']);
  });

  it('says which handler failed for which letter, and what comes next, without the payload', async () => {
    const { listener, errors } = listenerOf({
      name: 'Alerts.page',
      tell: () => Promise.reject(new Error('the pager is down')),
    });
    const job = jobOf();
    await expect(listener.tell(job)).rejects.toThrow('Alerts.page failed.');
    job.attemptsMade = 9;
    await expect(listener.tell(job)).rejects.toThrow('Alerts.page failed.');
    expect(errors).toEqual([
      `Alerts.page failed for dead letter ${ID} of queue "charges" (attempt 1 of 10; it will be told again): the pager is down`,
      `Alerts.page failed for dead letter ${ID} of queue "charges" (attempt 10 of 10; it will be told again after a longer pause, while it is open): the pager is down`,
    ]);
  });

  it('tells an encrypted payload in plain text, and nothing where it cannot be read, until it can', async () => {
    const told: unknown[] = [];
    const hears = [{ name: 'a', tell: ({ payload }: DeadLetterMessage) => told.push(payload) }];
    const encryptedFor = (other: object): DeadLetterWithPayload => {
      const binding = letterBinding({ ...letter, ...other });
      return { ...letter, payload: JSON.parse(encryption.encrypt('{"card":"4242"}', binding)) as unknown };
    };
    await listenerWith(encryptedFor({}), hears).listener.tell(jobOf());
    expect(told).toEqual([letter.payload]);
    const { listener, errors } = listenerWith(encryptedFor({ tenantId: 'globex' }), hears);
    await expect(listener.tell(jobOf())).rejects.toThrow('does not authenticate');
    expect(told).toHaveLength(1);
    expect(errors).toEqual([
      expect.stringMatching(/^Dead letter \S+ of queue "charges" is told later: The payload of operation/),
    ]);
  });

  it('believes of a message nothing but the id of its letter', async () => {
    const told: DeadLetterMessage[] = [];
    const { listener } = listenerOf({ name: 'a', tell: (message) => told.push(message) });
    await listener.tell(jobOf({ ...news, tenantId: { a: 1 }, queue: 'receipts', payload: 'forged' }));
    expect(told).toEqual([news]);
  });

  it.each([
    ['malformed', null],
    ['malformed', 'letter'],
    ['malformed', {}],
    ['malformed', { letterId: { a: 1 } }],
    ['malformed', { letterId: `${ID}'; --` }],
    ['unknown', { letterId: ID.replace('5', '6') }],
  ])('drops a message whose letter is %s: %o', async (because, data) => {
    const told: unknown[] = [];
    const { listener, dropped } = listenerOf({ name: 'a', tell: (message) => told.push(message) });
    await listener.tell(jobOf(data));
    expect(dropped).toEqual([because]);
    expect(told).toEqual([]);
  });

  it('drops a message of a letter that is announced on another queue', async () => {
    const elsewhere = { name: 'receipts-dlq' } as QueuePort;
    const { listener, dropped } = listenerOn(elsewhere, letter, []);
    await listener.tell(jobOf());
    expect(dropped).toEqual(['elsewhere']);
  });

  it('leaves a letter that nobody here is told of to other processes', async () => {
    const ofReceipts = { ...letter, queue: 'receipts' };
    const { listener } = listenerWith(ofReceipts, [{ name: 'a', tell: () => undefined }]);
    await expect(listener.tell(jobOf())).rejects.toThrow('"receipts"');
  });

  it('gives up on a job that is no dead letter', async () => {
    const { listener } = listenerOf({ name: 'a', tell: () => undefined });
    await expect(listener.tell(jobOf({}, 'charge'))).rejects.toThrow(UnrecoverableError);
  });
});
