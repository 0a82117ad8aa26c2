import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { IdempotentJobsModule } from 'nestjs-idempotent-jobs';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { enqueue, settled } from '../support/ledger.js';
import { processorOf } from '../support/processors.js';
import { ANY_BACKEND, makePlace } from '../support/scenario.js';
import { rootModule, startApp } from '../support/start-app.js';

/** A feature module that brings what it needs along, as it would in an application of many teams. */
function featureModule(...imports: object[]) {
  @Module({ imports: imports as never })
  class FeatureModule {}
  return FeatureModule;
}

describe('IdempotentJobsModule.forRoot(), imported more than once', () => {
  const apps = useApps();

  it.each([
    ['forRoot()', () => IdempotentJobsModule.forRoot()],
    ['forRootAsync()', () => IdempotentJobsModule.forRootAsync({ useFactory: () => ({}) })],
  ])('with another %s is refused at boot, and told how to do it', async (_what, again) => {
    const place = await makePlace(ANY_BACKEND);
    const starting = startApp(place, { queues: ['charges'], imports: [featureModule(again())] });
    await expect(starting).rejects.toThrow(
      /forRoot\(\) or forRootAsync\(\) is imported 2 times.*root module.*registerQueue\(\)/,
    );
    await expect(starting).rejects.toMatchObject({ code: 'CONFIGURATION' });
  });

  it('with the same dynamic module is one module, and works', async () => {
    const place = await makePlace(ANY_BACKEND);
    const once = IdempotentJobsModule.forRoot({ migrations: 'run', logs: 'none' });
    const [typeOrm, bull, , queue] = rootModule(place, { queues: ['charges'] }).imports as object[];
    @Module({
      imports: [typeOrm, bull, once, queue, featureModule(once)] as never,
      providers: [processorOf('charges', { effect: 'natural' }, () => 'done')],
    })
    class ShopModule {}
    const app = await NestFactory.createApplicationContext(ShopModule, {
      logger: false,
      abortOnError: false,
    });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ result: 'done' });
    await app.close();
  });

  it('does not matter to two applications of one process', async () => {
    const { place } = await apps.fresh(ANY_BACKEND, { queues: ['charges'] });
    await apps.beside(place, { queues: ['charges'] });
  });
});
