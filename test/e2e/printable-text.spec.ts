import type { INestApplicationContext, LoggerService } from '@nestjs/common';
import { PermanentError } from 'nestjs-idempotent-jobs';
import { type DeadLetterMessage, OnDeadLetter } from 'nestjs-idempotent-jobs/dead-letters';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { cli, cliIn } from '../support/cli.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, enqueue, lettersOf } from '../support/ledger.js';
import { identifyPlain, processorOf } from '../support/processors.js';
import { ANY_BACKEND, BACKENDS, makePlace } from '../support/scenario.js';

/** What steers a terminal, forges a line, turns text around or cannot be seen, by its code point. */
const UNSEEN = [
  0x07, 0x08, 0x09, 0x0a, 0x0d, 0x1b, 0x7f, 0x85, 0x9b, 0xad, 0x34f, 0x61c, 0x180e, 0x200b, 0x200d, 0x200e,
  0x2028, 0x2029, 0x202a, 0x202e, 0x2060, 0x2066, 0x2069, 0xfe0f, 0xfeff, 0xfff9, 0xe0041, 0xd800,
].map((point) => String.fromCodePoint(point));

/** What a stranger's text may hold, each beside a word that is to stay. */
const STRANGE = `gateway said ${UNSEEN.map((unseen, index) => `w${index}${unseen}`).join('')} ERROR [IdempotentJobs] forged`;

/** Those of them that a text holds. Lines that programs print end with a line feed. */
const unseenIn = (text: string): string[] =>
  UNSEEN.filter((unseen) => unseen !== '\n' && text.includes(unseen)).map((unseen) => JSON.stringify(unseen));

/** A logger that keeps every line. */
function keeping(lines: string[]): LoggerService {
  const keep = (message: unknown): void => void lines.push(String(message));
  return { log: keep, warn: keep, error: keep, debug: keep, verbose: keep, fatal: keep };
}

describe.each(BACKENDS)('text of strangers, as people see it, on %s', (backend) => {
  const apps = useApps();

  async function failing(
    lines: string[],
  ): Promise<{ app: INestApplicationContext; letter: string; place: object }> {
    const processor = processorOf('charges', { effect: 'natural', identify: identifyPlain }, () => {
      throw new PermanentError(STRANGE);
    });
    class Alerts {
      @OnDeadLetter('charges')
      tell(): void {
        throw new Error(STRANGE);
      }
    }
    const { app, place } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [processor, Alerts],
      jobs: { logs: 'all' },
      logger: keeping(lines),
    });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    const letters = await eventually(
      () => lettersOf(app),
      (found) => expect(found).toHaveLength(1),
    );
    return { app, place, letter: letters[0]?.id as string };
  }

  it('is one line of the log, and nothing in it is unseen', async () => {
    const lines: string[] = [];
    const { app } = await failing(lines);
    await bullQueue(app, 'charges').add(STRANGE, { tenant: 'acme', key: 'charge:2' });
    await eventually(
      async () => lines.filter((line) => line.includes('ERROR [IdempotentJobs] forged')).join('\n'),
      (ours) => {
        expect(ours).toMatch(/^dead charge .*error="gateway said /m);
        expect(ours).toMatch(/^Alerts\.tell failed for dead letter /m);
        expect(ours).toMatch(/^dead "gateway said /m);
      },
    );
    const ours = lines.filter((line) => line.includes('forged'));
    expect(ours.flatMap((line) => line.split('\n')).filter((line) => !line.includes('gateway said'))).toEqual(
      [],
    );
    expect(ours.flatMap(unseenIn)).toEqual([]);
    for (const line of ours) for (const word of ['w0', 'w10', 'w27']) expect(line).toContain(word);
  });

  it('is cut in lines, letters and messages, however long the name or the id of a refused job is', async () => {
    const lines: string[] = [];
    const told: unknown[] = [];
    class Alerts {
      @OnDeadLetter('charges')
      tell(letter: DeadLetterMessage): void {
        told.push(letter);
      }
    }
    const processor = processorOf('charges', { effect: 'natural' }, () => 'never');
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [processor, Alerts],
      jobs: { logs: 'all' },
      logger: keeping(lines),
    });
    const queue = bullQueue(app, 'charges');
    // BullMQ in Postgres has its ids in an index, which takes no longer ones.
    const jobId = 'y'.repeat(backend === 'redis' ? 500_000 : 1_000);
    await queue.add('x'.repeat(1_000_000), {}, { jobId });
    await bullQueue(app, 'charges-dlq').add('z'.repeat(1_000_000), {}, { jobId });
    await eventually(
      () => lines.join('\n'),
      (text) => expect(text).toMatch(/^dead x(.|\n)*letter_dropped|letter_dropped z(.|\n)*^dead x/m),
    );
    await eventually(
      () => told,
      (letters) => expect(letters).toHaveLength(1),
    );
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThan(3_000);
    expect(JSON.stringify(told).length).toBeLessThan(3_000);
    expect(JSON.stringify(await lettersOf(app)).length).toBeLessThan(5_000);
    const messages = await bullQueue(app, 'charges-dlq').getJobs();
    const ours = messages.filter(({ name }) => name === 'dead-letter');
    expect(JSON.stringify(ours.map(({ data }) => data as unknown)).length).toBeLessThan(3_000);
    const failed = [...(await queue.getFailed()), ...(await bullQueue(app, 'charges-dlq').getFailed())];
    for (const { failedReason } of failed) expect(failedReason.length).toBeLessThan(1_000);
  });

  it('comes out of each command without anything unseen, and out of JSON as it went in', async () => {
    const { place, letter } = await failing([]);
    for (const args of [
      ['letters'],
      ['letters', '--groups'],
      ['letters', letter],
      ['history', '--tenant', 'acme', '--key', 'charge:1'],
    ]) {
      const text = await cliIn(place as never, ...args);
      expect(text.stdout).toContain('gateway said');
      expect(unseenIn(text.stdout)).toEqual([]);
      expect(text.stdout.split('\n').filter((line) => line.startsWith('w'))).toEqual([]);
      const json = await cliIn(place as never, ...args, '--json');
      expect(unseenIn(json.stdout)).toEqual([]);
      // A lone surrogate is nothing that Postgres keeps.
      expect(messagesIn(JSON.parse(json.stdout))).toContain(STRANGE.replace('\ud800', '\ufffd'));
    }
  });
});

/** All texts in a value that are an error's message. */
function messagesIn(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([name, inner]) =>
    name === 'message' && typeof inner === 'string' ? [inner] : messagesIn(inner),
  );
}

describe('what the command was called with', () => {
  it.each([[[]], [['--json']]])(
    'comes back in its answers without anything unseen, with %j',
    async (json) => {
      const place = await makePlace(ANY_BACKEND);
      await cliIn(place, 'migrate');
      const odd = UNSEEN.filter((unseen) => unseen !== '\ud800').join('x');
      for (const args of [
        ['history', '--tenant', 'acme', '--key', `a${odd}\nThe ledger is well.`],
        ['history', '--tenant', 'acme', '--key', 'a\u202e\u2028\u200bb'],
        ['status', '--queue', odd],
        ['letters', '--reason', odd],
        [odd],
        ['status', `--${odd}`],
        ['status', '--schema', odd],
      ]) {
        const { stdout, stderr } = await cliIn(place, ...args, ...json);
        expect(stdout + stderr).not.toBe('');
        expect(unseenIn(stdout + stderr)).toEqual([]);
        expect(stdout + stderr).not.toMatch(/^The ledger is well/m);
      }
      expect(unseenIn((await cli([odd], { DATABASE_URL: `postgres://a:b@${odd}/c` })).stderr)).toEqual([]);
    },
  );
});
