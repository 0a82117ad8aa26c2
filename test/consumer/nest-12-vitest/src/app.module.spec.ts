import 'reflect-metadata';
import type { INestApplicationContext } from '@nestjs/common';
import { Test } from '@nestjs/testing';
import { OutcomeService } from 'nestjs-idempotent-jobs';
import { InvalidIdentityError } from 'nestjs-idempotent-jobs/errors';
import { DispatchService } from 'nestjs-idempotent-jobs/operate';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AppModule, Shop } from './app.module.js';

describe('the shop', () => {
  let app: INestApplicationContext;
  beforeAll(async () => {
    const module = await Test.createTestingModule({ imports: [AppModule] }).compile();
    app = await module.init();
  });
  afterAll(() => app.close());

  it('sells once, however often it is asked', async () => {
    const sold = 'acme paid 500 for order-2 at attempt 1';
    expect(await app.get(Shop).sell('order-2')).toBe(sold);
    expect(await app.get(Shop).sell('order-2')).toBe(sold);
  });

  it('gets one copy of each class, from whichever path', async () => {
    expect(app.get(DispatchService)).toBeInstanceOf(DispatchService);
    const asking = app.get(OutcomeService).wait({ tenantId: 'acme', operationKey: '' });
    await expect(asking).rejects.toThrow(InvalidIdentityError);
  });
});
