import 'reflect-metadata';
import { NestFactory } from '@nestjs/core';
import { TenantContext } from 'nestjs-idempotent-jobs';
import { AppModule, Shop } from './app.module';

async function main(): Promise<void> {
  const app = await NestFactory.createApplicationContext(AppModule, { logger: ['warn', 'error'] });
  const sold = await app.get(Shop).sell('order-1');
  await app.close();
  if (sold !== 'acme paid 500 for order-1 at attempt 1') throw new Error(`The shop said: ${sold}`);

  // Node gives both kinds of modules the same one.
  const imported = await (new Function(`return import('nestjs-idempotent-jobs')`)() as Promise<object>);
  if (!('TenantContext' in imported) || imported.TenantContext !== TenantContext)
    throw new Error('There are two copies of the library.');
}

void main();
