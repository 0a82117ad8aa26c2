import { Processor } from '@nestjs/bullmq';
import { describe, expect, it } from 'vitest';
import { processedQueueOf, workerOptionsOf } from './bullmq-metadata.js';

describe('the metadata of @Processor', () => {
  it('tells the queue and the worker options', () => {
    @Processor('charges', { concurrency: 7 })
    class ChargeProcessor {}
    expect(processedQueueOf(ChargeProcessor)).toBe('charges');
    expect(workerOptionsOf(ChargeProcessor)).toEqual({ concurrency: 7 });
  });

  it('tells the queue of a processor whose options are one object', () => {
    @Processor({ name: 'charges', configKey: 'other' })
    class ChargeProcessor {}
    expect(processedQueueOf(ChargeProcessor)).toBe('charges');
    expect(workerOptionsOf(ChargeProcessor)).toEqual({});
  });

  it('is missing on any other class', () => {
    class Service {}
    expect(processedQueueOf(Service)).toBeUndefined();
    expect(workerOptionsOf(Service)).toEqual({});
  });
});
