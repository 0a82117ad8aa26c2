import { Module } from '@nestjs/common';
import { QueuesModule } from '../queues.module.js';
import { Alerts } from './alerts.js';

@Module({ imports: [QueuesModule], providers: [Alerts] })
export class AlertsModule {}
