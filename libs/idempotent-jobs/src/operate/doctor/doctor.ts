import { Inject, Injectable } from '@nestjs/common';
import { DiscoveryService } from '@nestjs/core';
import { Dependencies } from '../../resilience/dependency/dependencies.js';
import { QueueRegistry } from '../../producer/queue-registry.js';
import { SharedKeys } from '../../worker/intake/shared-keys.js';
import { RESOLVED_OPTIONS } from '../../options/resolved-options.token.js';
import { type DescribedOptions, describeApp } from './describe-app.js';
import type { AppDescription } from './app-description.js';
import { diagnose } from './diagnose.js';
import type { DoctorReport } from './doctor-report.js';

/**
 * Answers the five questions that decide whether retries are safe, for the running application. It looks at what is
 * registered and declared in this process, and asks neither Postgres nor BullMQ.
 */
@Injectable()
export class Doctor {
  /** @internal Injected. */
  constructor(
    private readonly discovery: DiscoveryService,
    private readonly queues: QueueRegistry,
    private readonly dependencies: Dependencies,
    private readonly sharedKeys: SharedKeys,
    @Inject(RESOLVED_OPTIONS) private readonly options: DescribedOptions,
  ) {}

  /** The findings that stand in the way of safe retries, as plain JSON. */
  report(): DoctorReport {
    return diagnose(this.examined());
  }

  /** The description that the doctor examines. @internal */
  examined(): AppDescription {
    return {
      ...describeApp(this.discovery, this.queues, this.options, this.dependencies),
      sharedKeys: this.sharedKeys.found,
    };
  }
}
