import type { INestApplicationContext } from '@nestjs/common';
import { getDataSourceToken } from '@nestjs/typeorm';
import type { DataSource } from 'typeorm';

export function dataSourceOf(app: INestApplicationContext): DataSource {
  return app.get<DataSource>(getDataSourceToken());
}
