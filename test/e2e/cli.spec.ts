import { execFile } from 'node:child_process';
import { type AddressInfo, createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { INestApplicationContext } from '@nestjs/common';
import { PermanentError } from 'nestjs-idempotent-jobs';
import { beforeAll, describe, expect, inject, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { cli, cliIn, cliProcess, jsonOf } from '../support/cli.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, enqueue, lettersOf, outcomeOf, settled } from '../support/ledger.js';
import type { Backend, Place } from '../support/place.js';
import { processorOf } from '../support/processors.js';
import {
  ANY_BACKEND,
  BACKENDS,
  dataSourceOf,
  HAS_QUEUES_IN_POSTGRES,
  makeEmptyPlace,
  makePlace,
} from '../support/scenario.js';

const BY_ADA = ['--actor', 'ada', '--note', 'the account is back'];
const COMMANDS = [
  'status',
  'letters',
  'history',
  'redrive',
  'redrives',
  'resolve',
  'discard',
  'redispatch',
  'prune',
  'migrate',
  'doctor',
];

describe('idempotent-jobs, the command', () => {
  it('says with --help what it can do, and what its exit codes mean', async () => {
    const { code, stdout, stderr } = await cli(['--help']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    for (const command of COMMANDS) expect(stdout).toContain(`\n  ${command} `);
    expect(stdout).toMatch(/Exit codes:\n {2}0 {2}done\n {2}1 {2}refused.*\n {2}2 {2}wrong usage/);
  });

  it.each(['idempotent-jobs', 'nestjs-idempotent-jobs'])(
    'is linked as "%s" where its package is installed',
    async (name) => {
      const linked = fileURLToPath(new URL(`../../node_modules/.bin/${name}`, import.meta.url));
      // It rejects for any exit code but 0.
      const { stdout, stderr } = await promisify(execFile)(linked, ['--help']);
      expect({ code: 0, stdout, stderr }).toEqual(await cli(['--help']));
    },
  );

  it.each(COMMANDS)('says how to use "%s", without a database', async (command) => {
    const { code, stdout } = await cli([command, '--help']);
    expect(code).toBe(0);
    expect(stdout).toContain(`Usage: idempotent-jobs ${command}`);
    const changes = !['status', 'letters', 'history', 'doctor'].includes(command);
    expect(stdout.includes('--dry-run')).toBe(changes);
  });

  const somewhere = { DATABASE_URL: 'postgres://localhost:1/nowhere' };
  it.each<[string, string[], NodeJS.ProcessEnv, RegExp]>([
    ['no command', [], {}, /Usage: idempotent-jobs <command>/],
    ['an unknown command', ['redo'], {}, /no command "redo".*status, letters/],
    ['an unknown option', ['status', '--queues', 'a'], {}, /--queues.*status --help/],
    ['an option without its value', ['status', '--queue'], {}, /--queue/],
    ['one word too many', ['status', 'now'], {}, /"status" does not know what to do with "now"/],
    ['no DATABASE_URL', ['status'], {}, /DATABASE_URL is not set/],
    ['an empty DATABASE_URL', ['status'], { DATABASE_URL: '' }, /DATABASE_URL is not set/],
    [
      'a DATABASE_URL that is none',
      ['status'],
      { DATABASE_URL: 'hunter2:hunter2' },
      /DATABASE_URL is not a URL/,
    ],
    ['another kind of URL', ['status'], { DATABASE_URL: 'mysql://localhost/x' }, /DATABASE_URL is not a URL/],
    ['an empty schema', ['status', '--schema', ''], somewhere, /--schema must not be empty/],
  ])('refuses %s with exit code 2', async (_title, args, env, message) => {
    const { code, stdout, stderr } = await cli(args, env);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toMatch(message);
  });

  it.each([
    ['an @', 'hunter2hunter2@hunter2'],
    ['a /', '1234/hunter2hunter2'],
    ['a #', '1234#hunter2hunter2@hunter2'],
    ['a ?', '1234?hunter2hunter2'],
    ['an @ and a /', 'x@hunter2hunter2/hunter2'],
    ['a % that escapes nothing', 'hunter2%zz'],
  ])(
    'refuses a URL with %s in its password where it stands in the way, and says none of it',
    async (_what, password) => {
      const url = (scheme: string) => `${scheme}://ada:${password}@127.0.0.1:1/shop`;
      const database = await cli(['status', '--json'], { DATABASE_URL: url('postgres') });
      expect(database.code).toBe(password.startsWith('hunter2hunter2@') ? 1 : 2);
      expect(database.stderr).toContain('DATABASE_URL');
      expect(database.stdout + database.stderr).not.toMatch(/hunter2|1234|%zz/);
    },
  );

  it('says in JSON what it can do, and nothing else', async () => {
    for (const args of [
      ['--help', '--json'],
      ['--json', '--help'],
      ['letters', '--help', '--json'],
    ]) {
      const answer = await cli(args);
      expect(answer).toMatchObject({ code: 0, stderr: '' });
      expect(jsonOf(answer).commands).toContainEqual(expect.objectContaining({ name: 'letters' }));
    }
  });

  it('hides secrets in whatever a server says', async () => {
    // Postgres names the role and database that it does not let in.
    const { host } = new URL(inject('postgresUrl'));
    const env = { DATABASE_URL: `postgres://hunter2hunter2:hunter2hunter2@${host}/hunter2hunter2` };
    const { code, stdout, stderr } = await cli(['status', '--json'], env);
    expect(code).toBe(1);
    expect(stderr).toContain('***');
    expect(stdout + stderr).not.toContain('hunter2');
  });

  it('with --json, says also what is wrong in JSON', async () => {
    const wrong = await cli(['redo', '--json']);
    expect(wrong.code).toBe(2);
    expect(jsonOf(wrong)).toMatchObject({ error: { code: 'WRONG_USAGE' } });
    const unreachable = await cli(['status', '--json'], somewhere);
    expect(unreachable.code).toBe(1);
    expect(jsonOf(unreachable)).toMatchObject({ error: { code: 'UNAVAILABLE' } });
  });

  it.each([
    ['that nobody answers', 'postgres://ada:hunter2hunter2@127.0.0.1:1/shop'],
    ['with a password that needs encoding', 'postgres://ada:hunter2%2Fhunter2@127.0.0.1:1/shop'],
    ['with the password at its end', 'postgres://127.0.0.1:1/shop?user=ada&password=hunter2hunter2'],
    ['that cannot be read', 'postgres://ada:hunter2hunter2@127.0.0.1:notaport/shop'],
  ])('does not say the password of a database %s', async (_title, url) => {
    for (const args of [['status'], ['status', '--json']]) {
      const { code, stdout, stderr } = await cli(args, { DATABASE_URL: url });
      expect(code).toBeGreaterThan(0);
      expect(stdout + stderr).not.toContain('hunter2');
      expect(stderr).toContain('DATABASE_URL');
    }
  });

  it('does not say the password of a Redis that nobody answers', async () => {
    const place = await makePlace(ANY_BACKEND);
    await cliIn(place, 'migrate');
    const redis = { REDIS_URL: 'redis://:hunter2hunter2@127.0.0.1:1' };
    const { code, stdout, stderr } = await cli(['status'], { DATABASE_URL: place.databaseUrl, ...redis });
    expect({ code, stdout }).toEqual({ code: 0, stdout: 'The ledger knows no queue yet.\n' });
    await apps.beside(place, { queues: ['charges'] });
    const answer = await cliProcess(['status'], { DATABASE_URL: place.databaseUrl, ...redis });
    expect(answer).toMatchObject({ code: 1, stdout: '' });
    expect(answer.stderr).toMatch(/^Redis at 127\.0\.0\.1:1 \(REDIS_URL\) cannot be reached: /);
    expect(stderr + answer.stderr).not.toContain('hunter2');
  });

  const apps = useApps();

  it('does not wait for ever for a Redis that stays silent', async () => {
    const silent = createServer();
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const { port } = silent.address() as AddressInfo;
    const place = await makePlace(ANY_BACKEND);
    await apps.beside(place, { queues: ['charges'] });
    const env = { DATABASE_URL: place.databaseUrl, REDIS_URL: `redis://127.0.0.1:${port}` };
    expect(await cliProcess(['status'], env)).toEqual({
      code: 1,
      stdout: '',
      stderr: `Redis at 127.0.0.1:${port} (REDIS_URL) cannot be reached: no answer within 10000 ms\n`,
    });
    silent.close();
  });

  it('migrates: first says what it would do, then does it, then finds nothing to do', async () => {
    const place = await makeEmptyPlace(ANY_BACKEND);
    const missing = await cliIn(place, 'status');
    expect(missing).toMatchObject({ code: 1, stdout: '' });
    expect(missing.stderr).toContain('npx -p nestjs-idempotent-jobs idempotent-jobs migrate');

    const dry = await cliIn(place, 'migrate', '--schema', 'jobs', '--dry-run');
    expect(dry).toMatchObject({ code: 0, stderr: '' });
    expect(dry.stdout).toMatch(/^Would take \d+ steps in schema "jobs": 1 first-release/);
    const taken = jsonOf(await cliIn(place, 'migrate', '--schema', 'jobs', '--json'));
    expect(taken.steps).toEqual([
      { version: 1, name: 'first-release' },
      { version: 2, name: 'bundles' },
    ]);
    expect(await cliIn(place, 'migrate', '--schema', 'jobs')).toMatchObject({
      code: 0,
      stdout: 'The ledger in schema "jobs" is up to date.\n',
    });
    expect(await cliIn(place, 'status', '--schema', 'jobs')).toMatchObject({ code: 0 });
    expect(await cliIn(place, 'status')).toMatchObject({ code: 1 });
  });

  it.runIf(HAS_QUEUES_IN_POSTGRES)(
    'says that it cannot know the depths of queues that are on a server it was not told of',
    async () => {
      const place = await makeEmptyPlace(ANY_BACKEND);
      const { connection } = await makeEmptyPlace(ANY_BACKEND);
      await apps.beside({ ...place, connection }, { queues: ['charges'] });
      const { code, stdout } = await cliIn(place, 'status');
      expect(code).toBe(0);
      expect(stdout).toMatch(/REDIS_URL is not set, and BullMQ has no schema "bullmq"/);
      expect(await cli(['status'], { DATABASE_URL: place.databaseUrl, REDIS_URL: '' })).toMatchObject({
        stdout,
      });
      expect(jsonOf(await cliIn(place, 'status', '--json'))).toMatchObject({
        bullmq: 'none',
        queues: [{ queue: 'charges', bullmq: null }],
      });
    },
  );
});

describe('idempotent-jobs, the command, called wrongly', () => {
  let place: Place;
  beforeAll(async () => {
    place = await migrated(ANY_BACKEND);
  });

  it.each<[string[], RegExp]>([
    [['letters', '--reason', 'boredom'], /--reason must be one of permanent_error/],
    [['letters', '--limit', '1001'], /--limit must be a number from 1 to 1000/],
    [['letters', '--from', 'yesterday'], /--from must be a time in ISO 8601/],
    [['letters', '--after', 'x'], /after must be/],
    [['letters', '--payload'], /--payload needs/],
    [['letters', 'not-a-uuid'], /UUID/],
    [['redrive', '--queue', 'charges', '--note', 'why'], /--actor is missing/],
    [['redrive', crypto.randomUUID(), '--actor', 'ada'], /--note is missing/],
    [['redrive', ...BY_ADA], /Name a letter/],
    [['redrive', crypto.randomUUID(), '--queue', 'charges', ...BY_ADA], /not both/],
    [['redrive', crypto.randomUUID(), '--rate', '5', ...BY_ADA], /--rate needs --queue/],
    [['redrive', '--queue', 'charges', '--rate', '0', ...BY_ADA], /ratePerSecond/],
    [['resolve', crypto.randomUUID(), ...BY_ADA], /--applied or --not-applied/],
    [['resolve', crypto.randomUUID(), '--applied', '--result', '{', ...BY_ADA], /--result is not JSON/],
    [
      ['resolve', crypto.randomUUID(), '--not-applied', '--result', '1', ...BY_ADA],
      /--result needs --applied/,
    ],
    [['discard', crypto.randomUUID(), '--tenant', 'acme', '--key', 'k', ...BY_ADA], /not by both/],
    [['redispatch', '--older-than', '15'], /--older-than must be a time span/],
    [['history', '--tenant', 'acme'], /--key is missing/],
    [['redrives', '--cancel', ...BY_ADA], /needs the id/],
    [['letters', crypto.randomUUID(), '--queue', 'charges'], /--queue is for the list/],
    [['letters', crypto.randomUUID(), '--all'], /--all is for the list/],
    [['letters', '--groups', '--all'], /--all is for the list/],
    [['letters', '--groups', '--after', 'x'], /--after is for the list/],
    [['redrives', crypto.randomUUID(), '--queue', 'charges'], /--queue is for the list/],
    [['redrives', crypto.randomUUID(), '--cancel', '--limit', '3', ...BY_ADA], /--limit is for the list/],
    [['redrives', '--actor', 'ada'], /--actor needs --cancel/],
    [['redrives', crypto.randomUUID(), '--dry-run'], /--dry-run needs --cancel/],
  ])('refuses %j with exit code 2', async (args, message) => {
    const { code, stdout, stderr } = await cliIn(place, ...args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toMatch(message);
  });

  it.each([['status'], ['doctor'], ['letters'], ['letters', '--groups'], ['redispatch'], ['redrives']])(
    '%s: a queue that the ledger does not know is refused with exit code 1',
    async (...args) => {
      const { code, stdout, stderr } = await cliIn(place, ...args, '--queue', 'refunds');
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
      expect(stderr).toContain('The ledger knows no queue "refunds".');
    },
  );
});

describe.each(BACKENDS)('idempotent-jobs, the command, beside an application on %s', (backend) => {
  const apps = useApps();

  /** An application whose charges fail until `isWell` is set, with as many dead letters. */
  async function failing(
    count: number,
    error: () => Error = () => new PermanentError('no such account'),
  ): Promise<{ app: INestApplicationContext; place: Place; bank: { isWell: boolean } }> {
    const bank = { isWell: false };
    const processor = processorOf('charges', { effect: 'unrepeatable', timeoutMs: 5000 }, (job) => {
      if (!bank.isWell) throw error();
      return { charged: (job.data as { amount: number }).amount };
    });
    const { app, place } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    for (let index = 1; index <= count; index += 1) {
      await enqueue(app, 'charges', 'charge', { amount: index, card: '4242' }, `charge:${index}`);
    }
    await eventually(
      () => lettersOf(app),
      (letters) => expect(letters).toHaveLength(count),
    );
    return { app, place, bank };
  }

  const letterOf = async (app: INestApplicationContext, key = 'charge:1'): Promise<string> =>
    (await lettersOf(app)).find((letter) => letter.operation_key === key)?.id as string;

  it('shows where every queue stands', async () => {
    const { app, place } = await failing(2);
    await eventually(
      async () => jsonOf(await cliIn(place, 'status', '--json')),
      (status) =>
        expect(status).toMatchObject({
          bullmq: backend,
          queues: [
            {
              queue: 'charges',
              deadLetterQueue: 'charges-dlq',
              openLetters: 2,
              pending: 0,
              inDoubt: 0,
              bullmq: { waiting: 0, active: 0, delayed: 0, failed: 2 },
            },
          ],
        }),
    );
    await dataSourceOf(app)
      .query(`UPDATE job_outcomes SET status = 'in_doubt', settled_at = NULL, doubt_since = now()
      WHERE operation_key = 'charge:1'`);
    const { code, stdout } = await cliIn(place, 'status', '--queue', 'charges');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^queue +waiting +active.*\ncharges +0 +0 +0 +2 +0 +0 +0 +1 +2 +20/);
    expect(await cliIn(place, 'status', '--queue', 'refunds')).toMatchObject({ code: 1, stdout: '' });
  });

  it('lists letters page by page, by cause, and one with all there is', async () => {
    const { app, place } = await failing(3);
    const first = jsonOf(await cliIn(place, 'letters', '--limit', '2', '--json'));
    const rest = jsonOf(await cliIn(place, 'letters', '--after', first.next, '--json'));
    expect(
      [...first.letters, ...rest.letters].map((letter) => String(letter.operationKey)).toSorted(),
    ).toEqual(['charge:1', 'charge:2', 'charge:3']);
    const list = await cliIn(
      place,
      'letters',
      '--tenant',
      'acme',
      '--key',
      'charge:2',
      '--from',
      '2026-01-01',
    );
    expect(list.code).toBe(0);
    expect(list.stdout).toMatch(
      /^letter +written.*\n[-0-9a-f]{36} .*charges +permanent_error +acme +charge:2 +1 +open +no such account\n$/,
    );
    expect(jsonOf(await cliIn(place, 'letters', '--groups', '--json')).groups).toMatchObject([
      { letters: 3, reason: 'permanent_error', queue: 'charges' },
    ]);
    const id = await letterOf(app);
    const one = await cliIn(place, 'letters', id);
    expect(one.stdout).toContain('no such account');
    expect(one.stdout).not.toContain('4242');
    expect(jsonOf(await cliIn(place, 'letters', id, '--payload', '--json')).payload).toEqual({
      amount: 1,
      card: '4242',
    });
    expect(await cliIn(place, 'letters', '--reason', 'expired')).toMatchObject({
      code: 1,
      stdout: 'No dead letter matches.\n',
    });
    expect(await cliIn(place, 'letters', crypto.randomUUID())).toMatchObject({ code: 1, stdout: '' });
  });

  it('redrives one letter, after a rehearsal that changes nothing', async () => {
    const { app, place, bank } = await failing(1);
    const id = await letterOf(app);
    bank.isWell = true;
    const rehearsal = await cliIn(place, 'redrive', id, ...BY_ADA, '--dry-run');
    expect(rehearsal).toMatchObject({ code: 0, stderr: '' });
    expect(rehearsal.stdout).toContain('Would be redriven');
    expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'dead' });

    expect(jsonOf(await cliIn(place, 'redrive', id, ...BY_ADA, '--json'))).toMatchObject({
      letterId: id,
      outcome: 'redriven',
      dryRun: false,
    });
    await eventually(
      () => outcomeOf(app, 'charge:1'),
      (outcome) => expect(outcome).toMatchObject({ status: 'completed', result: { charged: 1 } }),
    );
    expect(await cliIn(place, 'redrive', id, ...BY_ADA)).toMatchObject({ code: 1, stdout: '' });
    const story = await cliIn(place, 'history', '--tenant', 'acme', '--key', 'charge:1');
    expect(story.code).toBe(0);
    expect(story.stdout).toMatch(
      /accepted[^]*dead_lettered[^]*redrive by ada: the account is back[^]*completed/,
    );
    expect(await cliIn(place, 'history', '--tenant', 'acme', '--key', 'charge:0')).toMatchObject({ code: 1 });
  });

  it('redrives many, and shows how far it is', async () => {
    const { app, place, bank } = await failing(3);
    bank.isWell = true;
    const args = ['redrive', '--queue', 'charges', '--reason', 'permanent_error', '--canary', '1', ...BY_ADA];
    expect(jsonOf(await cliIn(place, ...args, '--dry-run', '--json'))).toMatchObject({
      letters: 3,
      dryRun: true,
    });
    expect(await cliIn(place, 'redrives')).toMatchObject({ code: 1, stdout: 'There is no redrive.\n' });
    const { redriveId } = jsonOf(await cliIn(place, ...args, '--json'));
    for (const key of ['charge:1', 'charge:2', 'charge:3'])
      await eventually(
        () => outcomeOf(app, key),
        (outcome) => expect(outcome).toMatchObject({ status: 'completed' }),
      );
    await eventually(
      async () => jsonOf(await cliIn(place, 'redrives', redriveId, '--json')),
      (redrive) =>
        expect(redrive).toMatchObject({ status: 'completed', progress: { redriven: 3, failed: 0 } }),
    );
    expect((await cliIn(place, 'redrives')).stdout).toMatch(/charges +completed +3 +0 +3/);
    expect(await cliIn(place, 'redrives', redriveId, '--cancel', ...BY_ADA)).toMatchObject({ code: 1 });
    expect(await cliIn(place, ...args)).toMatchObject({ code: 1, stdout: '' });
  });

  it('cancels a redrive of many', async () => {
    const { place, bank } = await failing(2);
    // The canary goes well, and the rate keeps the other one waiting.
    bank.isWell = true;
    const many = ['redrive', '--queue', 'charges', '--canary', '1', '--rate', '0.01', ...BY_ADA];
    const { redriveId } = jsonOf(await cliIn(place, ...many, '--json'));
    expect((await cliIn(place, 'redrives', redriveId, '--cancel', '--dry-run', ...BY_ADA)).stdout).toContain(
      'Would cancel',
    );
    expect(jsonOf(await cliIn(place, 'redrives', redriveId, '--cancel', ...BY_ADA, '--json'))).toMatchObject({
      status: 'cancelled',
    });
  });

  it('resolves what is in doubt, as applied and as not applied', async () => {
    const { app, place, bank } = await failing(2, () => new Error('socket hang up'));
    expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'in_doubt' });
    const first = await letterOf(app);
    const applied = ['--applied', '--result', '{"charged":1}', ...BY_ADA];
    expect((await cliIn(place, 'resolve', first, ...applied, '--dry-run')).stdout).toContain(
      'would be resolved',
    );
    expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'in_doubt' });
    expect(await cliIn(place, 'resolve', first, ...applied)).toMatchObject({ code: 0, stderr: '' });
    expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'completed', result: { charged: 1 } });

    bank.isWell = true;
    const second = ['--tenant', 'acme', '--key', 'charge:2', '--not-applied', ...BY_ADA];
    expect(await cliIn(place, 'resolve', ...second)).toMatchObject({ code: 0, stderr: '' });
    expect(await settled(app, 'charge:2')).toMatchObject({ status: 'completed', result: { charged: 2 } });
  });

  it('discards a letter, after a rehearsal that changes nothing', async () => {
    const { app, place } = await failing(1);
    const named = ['discard', '--tenant', 'acme', '--key', 'charge:1', ...BY_ADA];
    expect((await cliIn(place, ...named, '--dry-run')).stdout).toContain('would be discarded');
    expect(await cliIn(place, 'letters')).toMatchObject({ code: 0 });
    expect(await cliIn(place, ...named)).toMatchObject({ code: 0, stderr: '' });
    expect(await cliIn(place, 'letters')).toMatchObject({ code: 1 });
    expect((await cliIn(place, 'letters', '--all')).stdout).toContain('discarded');
    expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'dead' });
    expect(await cliIn(place, ...named)).toMatchObject({ code: 1, stdout: '' });
  });

  it('puts unsettled operations on their queue again, after a rehearsal that changes nothing', async () => {
    const { app, place } = await apps.fresh(backend, { queues: ['charges'] });
    await enqueue(app, 'charges', 'charge', { amount: 1 }, 'charge:1');
    const waiting = async (): Promise<number> => bullQueue(app, 'charges').getJobCountByTypes('waiting');
    await eventually(waiting, (count) => expect(count).toBe(1));
    await bullQueue(app, 'charges').drain();

    expect(jsonOf(await cliIn(place, 'redispatch', '--older-than', '1h', '--json'))).toMatchObject({
      operations: 0,
    });
    expect(jsonOf(await cliIn(place, 'redispatch', '--dry-run', '--json'))).toEqual({
      operations: 1,
      withoutPayload: 0,
      dryRun: true,
    });
    expect(await waiting()).toBe(0);
    const done = await cliIn(place, 'redispatch', '--queue', 'charges');
    expect(done).toMatchObject({ code: 0, stderr: '' });
    expect(done.stdout).toMatch(/^1 operations are due/);
    await eventually(waiting, (count) => expect(count).toBe(1));
  });

  it('prunes what is past its retention, after a rehearsal that changes nothing', async () => {
    const { app, place, bank } = await failing(0);
    bank.isWell = true;
    await enqueue(app, 'charges', 'charge', { amount: 1 }, 'charge:1');
    await settled(app, 'charge:1');
    expect((await cliIn(place, 'prune')).stdout).toContain('Removed 0 completed operations');
    await dataSourceOf(app).query(`UPDATE job_outcomes SET expires_at = now() - interval '1 day'`);
    expect(jsonOf(await cliIn(place, 'prune', '--dry-run', '--json'))).toEqual({
      operations: 1,
      letters: 0,
      dryRun: true,
    });
    expect(await outcomeOf(app, 'charge:1')).toBeDefined();
    expect(jsonOf(await cliIn(place, 'prune', '--json'))).toMatchObject({ operations: 1, dryRun: false });
    expect(await outcomeOf(app, 'charge:1')).toBeUndefined();
  });

  it('says what the applications’ doctors found: 1 for problems, 0 for none', async () => {
    const place = await migrated(backend);
    const nobody = await cliIn(place, 'doctor');
    expect(nobody).toMatchObject({ code: 1, stdout: '' });
    expect(nobody.stderr).toContain('No application has registered a queue yet');

    const sound = { effect: 'natural', timeoutMs: 1000 } as const;
    const jobs = { traceContext: () => ({}), tenants: { resolve: () => 'acme' } };
    const queues = ['charges', 'receipts', 'refunds'];
    const done = (): string => 'done';
    await apps.beside(place, { queues, jobs });
    const silent = await cliIn(place, 'doctor', '--json');
    expect(jsonOf(silent)).toMatchObject({ error: { code: 'UNAVAILABLE' } });
    expect(silent).toMatchObject({ code: 1 });
    expect(silent.stderr).toContain('there is nothing to report');

    await apps.beside(place, { queues, providers: [processorOf('charges', sound, done)], jobs });
    const healthy = await cliIn(place, 'doctor');
    expect(healthy).toMatchObject({ code: 0, stderr: '' });
    expect(healthy.stdout).toMatch(/^1\. Can every job run a second time without harm\? yes\n/);
    expect(healthy.stdout).toMatch(/Reported: charges \(.*\)\. No report of: receipts, refunds\./);

    await apps.beside(place, { queues, providers: [processorOf('receipts', sound, done)] });
    await apps.beside(place, {
      queues,
      providers: [processorOf('refunds', { ...sound, clientRetries: 2 }, done)],
    });
    const ill = await cliIn(place, 'doctor', '--json');
    expect(ill.code).toBe(1);
    // What is said of an application as a whole is said once, though two queues say it.
    expect(jsonOf(ill)).toMatchObject({
      healthy: false,
      findings: [
        { code: 'client-retries', queue: 'refunds' },
        { code: 'tenants-not-resolved' },
        { code: 'trace-not-handed-on' },
      ],
      unreported: [],
    });
    expect(await cliIn(place, 'doctor', '--queue', 'charges')).toMatchObject({ code: 0 });
    expect(await cliIn(place, 'doctor', '--queue', 'mails')).toMatchObject({ code: 1, stdout: '' });
  });
});

async function migrated(backend: Backend): Promise<Place> {
  const place = await makePlace(backend);
  await cliIn(place, 'migrate');
  return place;
}
