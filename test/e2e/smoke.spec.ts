import { WorkerHost } from '@nestjs/bullmq';
import { Injectable } from '@nestjs/common';
import type { Job } from 'bullmq';
import {
  currentOperation,
  getIdempotentQueueToken,
  IdempotentProcessor,
  type IdempotentQueue,
  OutcomeService,
  TenantContext,
} from 'nestjs-idempotent-jobs';
import { describe, expect, it } from 'vitest';
import { BACKENDS, makePlace, startApp } from '../support/scenario.js';

const calls: unknown[] = [];

@Injectable()
class Greeter {
  greet(name: string): string {
    return `hello ${name}`;
  }
}

@IdempotentProcessor('greetings', { effect: 'keyed' }, { concurrency: 5 })
class GreetingProcessor extends WorkerHost {
  constructor(private readonly greeter: Greeter) {
    super();
  }
  async process(job: Job<{ name: string }>): Promise<{ text: string }> {
    const { tenantId, operationKey, attempt } = currentOperation();
    calls.push({ tenantId, operationKey, attempt, data: job.data });
    return { text: this.greeter.greet(job.data.name) };
  }
}

describe.each(BACKENDS)('on %s', (backend) => {
  it('runs an operation once and replays it', async () => {
    const place = await makePlace(backend);
    const app = await startApp(place, { queues: ['greetings'], providers: [GreetingProcessor, Greeter] });
    const queue = app.get<IdempotentQueue>(getIdempotentQueueToken('greetings'));
    const operation = await app
      .get(TenantContext)
      .run('acme', () => queue.enqueue('greet', { name: 'Ada' }, { operationKey: 'greet:1' }));
    const outcome = await app.get(OutcomeService).wait(operation, { timeoutMs: 10_000 });
    expect(outcome).toMatchObject({ status: 'completed', result: { text: 'hello Ada' }, attempts: 1 });
    console.log(calls);
    await app.close();
  });
});
