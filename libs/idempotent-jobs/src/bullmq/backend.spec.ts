import type { Queue } from 'bullmq';
import { describe, expect, it } from 'vitest';
import { ConfigurationError } from '../operation/errors.js';
import { assertBackend } from './backend.js';

describe('a queue', () => {
  const asked = { name: 'charges', opts: { connection: {} } };

  it('of another copy of BullMQ is refused, and so is one of a class that extends its Queue', () => {
    const Other = class Queue {
      readonly name = 'charges';
      readonly opts = { connection: {} };
    };
    class OwnQueue extends Other {}
    for (const queue of [new Other(), new OwnQueue()]) {
      const assert = (): void => assertBackend(queue as unknown as Queue);
      expect(assert).toThrow(ConfigurationError);
      expect(assert).toThrow(/^Queue "charges" was made by another copy of BullMQ .*npm ls bullmq/);
    }
  });

  it('of this copy, or an object of a test that stands for one, is taken', async () => {
    const { Queue: Own } = await import('bullmq');
    const own = Object.assign(Object.create(Own.prototype) as Queue, asked);
    for (const queue of [own, asked as unknown as Queue]) expect(() => assertBackend(queue)).not.toThrow();
  });
});
