import { AsyncLocalStorage } from 'node:async_hooks';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Coalescer, type CoalescerLimits } from './coalescer.js';

/** A statement under way: what was asked, and how to answer it. */
interface Batch {
  readonly questions: string[];
  answer(): void;
  fail(error: unknown): void;
}

/** Questions `key/detail`; the answer to `x` is `re: x`. */
function make(limits?: Omit<CoalescerLimits, 'slowMs'>) {
  const batches: Batch[] = [];
  const ask = (questions: string[]): Promise<string[]> =>
    new Promise((resolve, reject) => {
      batches.push({
        questions,
        answer: () => resolve(questions.map((question) => `re: ${question}`)),
        fail: reject,
      });
    });
  const coalescer = new Coalescer<string, string>(
    ask,
    (question) => question.split('/').at(0)!,
    limits && { ...limits, slowMs: NEVER },
  );
  return { coalescer, batches, asked: () => batches.map((batch) => batch.questions) };
}

/** No statement of a test that says nothing else is slow. */
const NEVER = 2 ** 31 - 1;

/** Lets all promises settle. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

const withCode = (code: string): Error =>
  Object.assign(new Error(`failed with ${code}`), { code, severity: 'ERROR' });

/** How each promise ended: its value or its error. */
async function ends(promises: Promise<string>[]): Promise<unknown[]> {
  const results = await Promise.allSettled(promises);
  return results.map((result) => (result.status === 'fulfilled' ? result.value : result.reason));
}

describe('Coalescer: batching', () => {
  it('asks after this turn of the event loop when nothing is under way', async () => {
    const { coalescer, batches, asked } = make();
    const answer = coalescer.submit('a');
    expect(asked()).toEqual([]);
    await settled();
    expect(asked()).toEqual([['a']]);
    batches.at(0)!.answer();
    expect(await answer).toBe('re: a');
  });

  it('asks together what arrives in one tick', async () => {
    const { coalescer, batches, asked } = make();
    const answers = ends(['a', 'b', 'c'].map((question) => coalescer.submit(question)));
    await settled();
    expect(asked()).toEqual([['a', 'b', 'c']]);
    batches.at(0)!.answer();
    expect(await answers).toEqual(['re: a', 're: b', 're: c']);
  });

  it('makes the next batch of whatever arrives while the only one allowed is under way', async () => {
    const { coalescer, batches, asked } = make({ batchSize: 10, inFlight: 1 });
    void coalescer.submit('a');
    await settled();
    void coalescer.submit('b');
    await settled();
    void coalescer.submit('c');
    await settled();
    expect(asked()).toEqual([['a']]);
    batches.at(0)!.answer();
    await settled();
    expect(asked()).toEqual([['a'], ['b', 'c']]);
  });

  it('asks beside one that is full, but not beside more than it may', async () => {
    const { coalescer, batches, asked } = make({ batchSize: 2, inFlight: 2 });
    for (const question of ['a', 'b', 'c', 'd', 'e', 'f']) void coalescer.submit(question);
    await settled();
    expect(asked()).toEqual([
      ['a', 'b'],
      ['c', 'd'],
    ]);
    batches.at(1)!.answer();
    await settled();
    expect(asked().slice(2)).toEqual([['e', 'f']]);
  });

  it('asks in nobody’s frame, whoever was first', async () => {
    const frame = new AsyncLocalStorage<string>();
    const askedIn: unknown[] = [];
    const answers: (() => void)[] = [];
    const coalescer = new Coalescer<string, string>(
      (questions) => {
        askedIn.push(frame.getStore());
        return new Promise((resolve) => answers.push(() => resolve(questions)));
      },
      (question) => question,
    );
    const seen = ['acme', 'globex'].map((tenant) =>
      frame.run(tenant, async () => (await coalescer.submit(tenant), frame.getStore())),
    );
    const late = frame.run('initech', async () => {
      await settled();
      return (await coalescer.submit('initech'), frame.getStore());
    });
    // The second is asked because the first is slow.
    await vi.waitFor(() => expect(answers).toHaveLength(2));
    for (const answer of answers) answer();
    expect(await Promise.all([...seen, late])).toEqual(['acme', 'globex', 'initech']);
    expect(askedIn).toEqual([undefined, undefined]);
  });

  describe('beside a slow one', () => {
    beforeEach(() => vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }));
    afterEach(() => vi.useRealTimers());

    it('asks once it is slow, up to three unless told otherwise', async () => {
      const { coalescer, asked } = make();
      const seen: number[] = [];
      for (const question of ['a', 'b', 'c', 'd']) {
        void coalescer.submit(question);
        await settled();
        seen.push(asked().length);
        vi.advanceTimersByTime(5);
      }
      // None waits behind slow ones, but for the last, which waits for an answer.
      expect(seen).toEqual([1, 2, 3, 3]);
      expect(asked()).toEqual([['a'], ['b'], ['c']]);
    });

    it('asks what has been waiting, without anything new', async () => {
      const { coalescer, asked } = make();
      void coalescer.submit('slow');
      await settled();
      void coalescer.submit('a');
      void coalescer.submit('b');
      await settled();
      vi.advanceTimersByTime(4);
      expect(asked()).toEqual([['slow']]);
      vi.advanceTimersByTime(1);
      expect(asked()).toEqual([['slow'], ['a', 'b']]);
    });

    it('waits again behind the next one, which is quick', async () => {
      const { coalescer, batches, asked } = make();
      for (const question of ['slow', 'a', 'b']) {
        void coalescer.submit(question);
        await settled();
        if (question === 'slow') vi.advanceTimersByTime(5);
      }
      expect(asked()).toEqual([['slow'], ['a']]);
      batches.at(0)!.answer();
      await settled();
      expect(asked()).toEqual([['slow'], ['a']]);
      batches.at(1)!.answer();
      await settled();
      expect(asked()).toEqual([['slow'], ['a'], ['b']]);
    });
  });

  it('makes no batch larger than it may, and keeps the order', async () => {
    const { coalescer, batches, asked } = make({ batchSize: 2, inFlight: 1 });
    const answers = ends(['a', 'b', 'c', 'd', 'e'].map((question) => coalescer.submit(question)));
    for (const index of [0, 1, 2]) {
      await settled();
      batches.at(index)!.answer();
    }
    expect(await answers).toEqual(['re: a', 're: b', 're: c', 're: d', 're: e']);
    expect(asked()).toEqual([['a', 'b'], ['c', 'd'], ['e']]);
  });

  it('never asks two questions with one key in the same batch', async () => {
    const { coalescer, batches, asked } = make({ batchSize: 10, inFlight: 1 });
    const answers = ends(['a/1', 'a/2', 'b/1', 'a/3'].map((question) => coalescer.submit(question)));
    for (const index of [0, 1, 2]) {
      await settled();
      batches.at(index)!.answer();
    }
    expect(await answers).toEqual(['re: a/1', 're: a/2', 're: b/1', 're: a/3']);
    expect(asked()).toEqual([['a/1', 'b/1'], ['a/2'], ['a/3']]);
  });

  it('rejects a question that has no key, and goes on', async () => {
    const coalescer = new Coalescer<{ key: string }, string>(
      async (questions) => questions.map(({ key }) => key),
      (question) => question.key.trim(),
    );
    await expect(coalescer.submit({} as { key: string })).rejects.toThrow(TypeError);
    await expect(coalescer.submit({ key: 'a' })).resolves.toBe('a');
  });
});

describe('Coalescer: failures', () => {
  it.each(['22021', '22P02', '23505', '23514', '40P01', '55P03'])(
    'asks each question alone when a batch fails with %s, so that one bad item fails alone',
    async (code) => {
      const { coalescer, batches, asked } = make();
      const answers = ends(['a', 'bad', 'c'].map((question) => coalescer.submit(question)));
      await settled();
      batches.at(0)!.fail(withCode(code));
      for (const index of [1, 2, 3]) {
        await settled();
        const batch = batches.at(index)!;
        if (batch.questions[0] === 'bad') batch.fail(withCode(code));
        else batch.answer();
      }
      expect(await answers).toEqual(['re: a', withCode(code), 're: c']);
      expect(asked()).toEqual([['a', 'bad', 'c'], ['a'], ['bad'], ['c']]);
    },
  );

  it.each([
    ['a connection error', Object.assign(new Error('gone'), { code: 'ECONNRESET' })],
    ['a server that stops', withCode('57P01')],
    ['a missing table', withCode('42P01')],
    ['a code that anybody can write', Object.assign(new Error('odd'), { code: '23505' })],
    ['an error without a code', new Error('Connection terminated unexpectedly')],
    ['an error whose code is a number', Object.assign(new Error('odd'), { code: 23_505 })],
  ])('rejects the whole batch, and asks nothing again, after %s', async (_what, error) => {
    const { coalescer, batches, asked } = make();
    const answers = ends(['a', 'b'].map((question) => coalescer.submit(question)));
    await settled();
    batches.at(0)!.fail(error);
    const [first, second] = await answers;
    expect(first).toBe(error);
    expect(second).toBe(error);
    await settled();
    expect(asked()).toEqual([['a', 'b']]);
  });

  it.each([undefined, null, 'lost', 0])(
    'rejects the whole batch when its statement rejects with %s, and goes on',
    async (reason) => {
      const { coalescer, batches } = make({ batchSize: 2, inFlight: 1 });
      const answers = ends(['a', 'b', 'c'].map((question) => coalescer.submit(question)));
      await settled();
      batches.at(0)!.fail(reason);
      await settled();
      batches.at(1)!.answer();
      expect(await answers).toEqual([reason, reason, 're: c']);
    },
  );

  it('does not ask a single question a second time', async () => {
    const { coalescer, batches, asked } = make();
    const answer = coalescer.submit('a');
    await settled();
    batches.at(0)!.fail(withCode('23505'));
    await expect(answer).rejects.toThrow('failed with 23505');
    await settled();
    expect(asked()).toEqual([['a']]);
  });

  it('goes on with what is waiting after a failure', async () => {
    const { coalescer, batches } = make({ batchSize: 1, inFlight: 1 });
    const answers = ends(['a', 'b'].map((question) => coalescer.submit(question)));
    await settled();
    batches.at(0)!.fail(new Error('gone'));
    await settled();
    batches.at(1)!.answer();
    expect(await answers).toEqual([new Error('gone'), 're: b']);
  });

  it('takes a statement that throws at once for one that fails', async () => {
    const coalescer = new Coalescer<string, string>(
      () => {
        throw new Error('no pool');
      },
      (question) => question,
    );
    await expect(coalescer.submit('a')).rejects.toThrow('no pool');
  });
});

describe('Coalescer: random arrivals', () => {
  const question = fc.record({ key: fc.constantFrom('a', 'b', 'c', 'd'), isBad: fc.boolean() });
  const limits = fc.record({
    batchSize: fc.integer({ min: 1, max: 4 }),
    inFlight: fc.integer({ min: 1, max: 3 }),
    slowMs: fc.constantFrom(0, NEVER),
  });

  it('gives every question its own answer, or its own error, and keeps its limits meanwhile', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.scheduler(),
        fc.array(question, { minLength: 1, maxLength: 12 }),
        limits,
        async (scheduler, questions, { batchSize, inFlight, slowMs }) => {
          let underWay = 0;
          const coalescer = new Coalescer<{ key: string; isBad: boolean; n: number }, string>(
            async (batch) => {
              expect(batch.length).toBeLessThanOrEqual(batchSize);
              expect(new Set(batch.map(({ key }) => key)).size).toBe(batch.length);
              underWay += 1;
              expect(underWay).toBeLessThanOrEqual(inFlight);
              await scheduler.schedule(Promise.resolve(), 'the statement');
              underWay -= 1;
              const bad = batch.find(({ isBad }) => isBad);
              if (bad !== undefined)
                throw Object.assign(new Error(`bad ${bad.n}`), { code: '23505', severity: 'ERROR' });
              return batch.map(({ n }) => `re: ${n}`);
            },
            ({ key }) => key,
            { batchSize, inFlight, slowMs },
          );
          const answers = questions.map(async (asked, n) => {
            await scheduler.schedule(Promise.resolve(), `arrival ${n}`);
            return coalescer.submit({ ...asked, n });
          });
          const all = ends(answers);
          await scheduler.waitFor(all);
          expect(await all).toEqual(
            questions.map(({ isBad }, n) =>
              isBad ? expect.objectContaining({ message: `bad ${n}` }) : `re: ${n}`,
            ),
          );
        },
      ),
    );
  });
});
