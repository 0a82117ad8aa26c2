/** The five questions that decide whether retries are safe. Each should be answered with yes. */
export const QUESTIONS = [
  'Can every job run a second time without harm?',
  'Can a retry tell that the work has been done already?',
  'Does every retry run as the tenant it belongs to?',
  'Is success recorded only when the outcome is certain?',
  'Can an operation be followed across its attempts?',
] as const;

/** The codes of the doctor's findings. Stable, so that programs can rely on them. */
export type DoctorCode =
  | 'circuit-shared-by-tenants'
  | 'client-retries'
  | 'client-retries-unknown'
  | 'effect-not-declared'
  | 'failed-jobs-removed'
  | 'logs-off'
  | 'plain-processor-on-idempotent-queue'
  | 'plain-processor-retries'
  | 'retention-too-short'
  | 'schedule-shares-key'
  | 'tenant-from-job-data'
  | 'tenants-not-resolved'
  | 'timeout-not-declared'
  | 'trace-not-handed-on'
  | 'two-processors-on-queue'
  | 'unsigned-jobs-accepted';

/** `error`: retries are unsafe. `warning`: they may be. `info`: worth knowing. */
export type DoctorSeverity = 'error' | 'warning' | 'info';

/** One finding that stands in the way of safe retries. Plain JSON. */
export interface DoctorFinding {
  readonly code: DoctorCode;
  readonly severity: DoctorSeverity;
  /** The question that it belongs to: 1 to 5. */
  readonly question: number;
  /** Null for findings that concern the whole application. */
  readonly queue: string | null;
  /** The name of the class, or null. */
  readonly processor: string | null;
  /** What was found, without the fix. */
  readonly message: string;
  readonly fix: string;
}

/** The answer to one of the five questions: `no` after an error, `unsure` after a warning, else `yes`. */
export interface DoctorAnswer {
  readonly question: string;
  readonly answer: 'yes' | 'unsure' | 'no';
}

/** The doctor's report. Plain JSON. */
export interface DoctorReport {
  /** Whether there is no finding of severity error or warning. */
  readonly healthy: boolean;
  /** The five questions, in order. */
  readonly answers: readonly DoctorAnswer[];
  /** Errors first, then warnings, then infos. */
  readonly findings: readonly DoctorFinding[];
}

/** Answers the five questions by the findings. */
export function reportOf(findings: readonly DoctorFinding[]): DoctorReport {
  const has = (severity: DoctorSeverity, question: number): boolean =>
    findings.some((finding) => finding.severity === severity && finding.question === question);
  return {
    healthy: problemsOf(findings).length === 0,
    answers: QUESTIONS.map((question, index) => ({
      question,
      answer: has('error', index + 1) ? 'no' : has('warning', index + 1) ? 'unsure' : 'yes',
    })),
    findings: findings.toSorted((a, b) => RANK[a.severity] - RANK[b.severity] || a.question - b.question),
  };
}

/** The findings that need action. */
export function problemsOf(findings: readonly DoctorFinding[]): readonly DoctorFinding[] {
  return findings.filter(({ severity }) => severity !== 'info');
}

/** A finding as one line for people. */
export function lineOf({ code, message, fix }: DoctorFinding): string {
  return `${code}: ${message} ${fix}`;
}

const RANK: Readonly<Record<DoctorSeverity, number>> = { error: 0, warning: 1, info: 2 };
