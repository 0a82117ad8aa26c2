import type { AppDescription } from './app-description.js';
import { diagnose } from './diagnose.js';
import type { DoctorReport } from './doctor-report.js';

/**
 * Answers for the running application the five questions that decide whether retries are safe. Looks at what is
 * registered and declared in this process; asks neither Postgres nor BullMQ.
 */
export class Doctor {
  /** @internal Injected. */
  constructor(private readonly describe: () => AppDescription) {}

  /** What stands in the way of safe retries, as plain JSON. */
  report(): DoctorReport {
    return diagnose(this.describe());
  }

  /** What it looks at. @internal */
  examined(): AppDescription {
    return this.describe();
  }
}
