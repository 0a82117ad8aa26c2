import { Inject, Injectable } from '@nestjs/common';
import { DiscoveryService } from '@nestjs/core';
import { Dependencies } from '../../resilience/dependency/dependencies.js';
import { QueueRegistry } from '../../producer/queue-registry.js';
import { SharedKeys } from '../../worker/intake/shared-keys.js';
import { RESOLVED_OPTIONS } from '../../option-checks/resolved-options.token.js';
import { type DescribedOptions, describeApp, type AppDescription } from './describe-app.js';
import { diagnose } from './diagnose.js';
import { type DoctorReport, lineOf, problemsOf } from './doctor-report.js';
import { LibraryLog } from '../../events/library-log.js';
import { ConfigurationError } from '../../operation/errors.js';
import { messageOf } from '../../operation/thrown.js';
import { QueueDirectory } from './queue-directory.js';

/**
 * Answers the five questions that decide whether retries are safe, for the running application, from what is registered
 * and declared in this process. It asks neither Postgres nor BullMQ.
 */
@Injectable()
export class Doctor {
  /** @internal Injected. */
  constructor(
    private readonly discovery: DiscoveryService,
    private readonly queues: QueueRegistry,
    private readonly dependencies: Dependencies,
    private readonly sharedKeys: SharedKeys,
    private readonly directory: QueueDirectory,
    private readonly log: LibraryLog,
    @Inject(RESOLVED_OPTIONS)
    private readonly options: DescribedOptions & { readonly doctor: 'warn' | 'fail' | 'off' },
  ) {}

  /** The findings that stand in the way of safe retries, as plain JSON. */
  report(): DoctorReport {
    return diagnose(this.#examined());
  }

  /**
   * Examines the application at boot, before any worker starts.
   *
   * @internal
   * @throws ConfigurationError in mode `fail`, naming every error and warning
   */
  async checkUp(): Promise<void> {
    const report = this.options.doctor === 'off' ? undefined : this.report();
    if (report !== undefined) this.#tell(report);
    try {
      await this.directory.note(this.#examined(), report);
    } catch (error) {
      // Not fatal: only tools that read the ledger from outside miss it.
      this.log.warn(`What is known of the queues could not be noted in job_queues: ${messageOf(error)}`);
    }
  }

  #tell({ findings }: DoctorReport): void {
    const problems = problemsOf(findings);
    if (this.options.doctor === 'fail' && problems.length > 0) {
      const lines = problems.map((finding) => `\n- ${finding.severity} ${lineOf(finding)}`);
      throw new ConfigurationError(
        `The doctor found ${problems.length} reasons why retries are not safe, and forRoot({ doctor: 'fail' }) refuses to start with them:${lines.join('')}`,
      );
    }
    for (const finding of problems) {
      if (finding.severity === 'error') this.log.error(lineOf(finding));
      else this.log.warn(lineOf(finding));
    }
  }

  #examined(): AppDescription {
    return {
      ...describeApp(this.discovery, this.queues, this.options, this.dependencies),
      sharedKeys: this.sharedKeys.found,
    };
  }
}
