import { Inject, Injectable } from '@nestjs/common';
import { LibraryLog } from '../../events/library-log.js';
import { ConfigurationError } from '../../operation/errors.js';
import { messageOf } from '../../operation/thrown.js';
import { RESOLVED_OPTIONS } from '../../options/resolved-options.token.js';
import { Doctor } from './doctor.js';
import { type DoctorReport, lineOf, problemsOf } from './doctor-report.js';
import { QueueDirectory } from './queue-directory.js';

/** Runs the doctor at boot, before any worker starts. */
@Injectable()
export class CheckUp {
  constructor(
    private readonly doctor: Doctor,
    private readonly directory: QueueDirectory,
    private readonly log: LibraryLog,
    @Inject(RESOLVED_OPTIONS) private readonly options: { readonly doctor: 'warn' | 'fail' | 'off' },
  ) {}

  /** @throws ConfigurationError in mode `fail`, naming every error and warning */
  async run(): Promise<void> {
    const report = this.options.doctor === 'off' ? undefined : this.doctor.report();
    if (report !== undefined) this.#tell(report);
    try {
      await this.directory.note(this.doctor.examined(), report);
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
}
