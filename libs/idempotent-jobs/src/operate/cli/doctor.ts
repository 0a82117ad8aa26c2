import { type DoctorFinding, type DoctorReport, reportOf } from '../doctor/doctor-report.js';
import { type QueueReport, QueueDirectory } from '../doctor/queue-directory.js';
import { command, text, Unavailable } from './command.js';
import { refuseUnknownQueue } from './services.js';

/** Combines what the applications' doctors reported when they last started. */
export const doctor = command({
  name: 'doctor',
  summary: 'say what the applications’ doctors found when these last started',
  options: { queue: text('queue', '<name>', 'only this queue') },
  async run({ given: { queue }, database }) {
    const all = await new QueueDirectory(database).reports();
    const meant = queue === undefined ? all : all.filter((one) => one.queue === queue);
    if (meant.length === 0) {
      await refuseUnknownQueue(database, queue);
      throw new Unavailable(
        queue === undefined
          ? 'No application has registered a queue yet: start one first.'
          : `No application has registered a queue "${queue}".`,
      );
    }
    const reported = meant.filter(({ report }) => report !== undefined);
    if (reported.length === 0) {
      throw new Unavailable(
        'No application that processes these queues has started with its doctor on: there is nothing to report.',
      );
    }
    const report = reportOf(findingsOf(reported));
    const unreported = meant.filter((one) => one.report === undefined).map((one) => one.queue);
    const queues = reported.map((one) => ({ queue: one.queue, reportedAt: one.reportedAt }));
    return {
      exitCode: report.healthy ? 0 : 1,
      json: { ...report, queues, unreported },
      lines: linesOf(report, reported, unreported),
    };
  },
});

/** Every queue's report repeats the findings about the whole application; each is listed once. */
function findingsOf(reports: readonly QueueReport[]): DoctorFinding[] {
  const findings = reports.flatMap(({ report }) => report?.findings ?? []);
  return [...new Map(findings.map((finding) => [JSON.stringify(finding), finding])).values()];
}

function linesOf(
  { answers, findings }: DoctorReport,
  reported: readonly QueueReport[],
  unreported: readonly string[],
): string[] {
  const dates = reported.map(({ queue, reportedAt }) => `${queue} (${reportedAt?.toISOString()})`);
  return [
    ...answers.map(({ question, answer }, index) => `${index + 1}. ${question} ${answer}`),
    ...findings.flatMap(({ severity, code, message, fix }) => [
      '',
      `${severity} ${code}`,
      `  ${message}`,
      `  Fix: ${fix}`,
    ]),
    '',
    `Reported: ${dates.join(', ')}.${unreported.length > 0 ? ` No report of: ${unreported.join(', ')}.` : ''}`,
  ];
}
