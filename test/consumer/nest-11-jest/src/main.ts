import 'reflect-metadata';
import { NestFactory } from '@nestjs/core';
import { AppModule, Shop } from './app.module';

async function main(): Promise<void> {
  const app = await NestFactory.createApplicationContext(AppModule, { logger: ['warn', 'error'] });
  console.log(await app.get(Shop).sell('order-1'));
  await app.close();
}

void main();
