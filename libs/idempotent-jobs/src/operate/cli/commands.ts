import { DispatchService } from '../../dispatch/dispatch.service.js';
import { LibraryLog } from '../../events/library-log.js';
import { schemaSteps } from '../../ledger/postgres/migrations.js';
import { PARTITIONS } from '../../ledger/postgres/partitions.js';
import { ensureSchema, comparePartitions, pendingSteps } from '../../ledger/postgres/schema-guard.js';
import { assertName } from '../../operation/identity.js';
import { type HistoryEntry, readHistory } from '../../outcome/history.js';
import { type DoctorFinding, type DoctorReport, reportOf } from '../doctor/doctor-report.js';
import { QueueDirectory, type QueueReport } from '../doctor/queue-directory.js';
import { Pruner } from '../retention/pruner.js';
import { type Command, command, duration, required, text, Unavailable, wholeNumber } from './command.js';
import { discard, DRY_RUN, letters, resolve } from './letters.js';
import { redrive, redrives } from './redrives.js';
import { type Columns, done, listed } from './render.js';
import { refuseUnknownQueue } from './services.js';
import { status } from './status.js';

const history = command({
  name: 'history',
  summary: 'show what has happened to one operation: attempts, letters, and what people did',
  options: {
    tenantId: required(text('tenant', '<id>', 'whose operation it is (required)')),
    operationKey: required(text('key', '<key>', 'its operation key (required)')),
    step: text('step', '<name>', 'the step of that operation'),
  },
  async run({ given, database }) {
    const entries = await readHistory(database, assertName(given));
    const nothing = `The ledger knows no operation "${given.operationKey}" of tenant "${given.tenantId}".`;
    return listed({ ...given, entries }, entries, HISTORY_COLUMNS, nothing);
  },
});

const HISTORY_COLUMNS: Columns<HistoryEntry> = {
  at: ({ at }) => at,
  what: ({ kind }) => kind,
  details: (entry) => detailsOf(entry),
};

function detailsOf(entry: HistoryEntry): string {
  switch (entry.kind) {
    case 'accepted':
      return `${entry.jobName} on ${entry.queue}`;
    case 'attempt_failed': {
      const { attempt, failure, decision, error } = entry;
      const details = [`attempt ${attempt}: ${failure}`, decision, error?.message];
      return details.filter((detail) => detail !== undefined).join(', ');
    }
    case 'reconciled':
      return `about attempt ${entry.attempt}: ${entry.reason}`;
    case 'running':
    case 'completed':
      return `attempt ${entry.attempt}`;
    case 'dead_lettered':
      return `${entry.reason}, letter ${entry.letterId}`;
    case 'action':
      return `${entry.action} by ${entry.actor}: ${entry.note}`;
    default:
      return entry satisfies never;
  }
}

/** For the time right after a queue was lost. */
const redispatch = command({
  name: 'redispatch',
  summary: 'put unsettled operations on their queues again, after a queue was lost',
  options: {
    queue: text('queue', '<name>', 'only those of this queue'),
    olderThanMs: duration('older-than', 'only those asked for at least so long ago, e.g. 15m, 2h'),
    dryRun: DRY_RUN,
  },
  async run({ given, database }) {
    const { queue, dryRun } = given;
    await refuseUnknownQueue(database, queue);
    const report = await new DispatchService(database).redispatchUnsettled(given);
    const { operations, withoutPayload } = report;
    const due = `${operations} operations ${dryRun ? 'would be' : 'are'} due for their queues; the dispatchers of the applications put them there.`;
    const lost =
      withoutPayload > 0
        ? ` ${withoutPayload} more are unsettled, but were delivered without the ledger: only their producers can put them again.`
        : '';
    return done({ ...report, dryRun }, due + lost);
  },
});

/** Prunes as applications do by themselves from time to time. */
const prune = command({
  name: 'prune',
  summary: 'remove completed operations and resolved letters that are past their retention',
  options: { dryRun: DRY_RUN },
  async run({ given: { dryRun }, database }) {
    const pruner = new Pruner(database, new LibraryLog({ warn: () => undefined, error: () => undefined }));
    const pruned = dryRun ? await pruner.count() : await pruner.prune();
    const { operations, letters: letterCount } = pruned;
    return done(
      { ...pruned, dryRun },
      `${dryRun ? 'Would remove' : 'Removed'} ${operations} completed operations and ${letterCount} resolved letters.`,
    );
  },
});

/** Runs the migrations that the ledger's schema lacks, as `forRoot({ migrations: 'run' })` would. */
const migrate = command({
  name: 'migrate',
  summary: 'create the ledger, or bring it to this package’s version',
  options: {
    dryRun: DRY_RUN,
    partitions: wholeNumber(
      'partitions',
      PARTITIONS,
      `in how many partitions by tenant a new ledger’s operations are kept, ${PARTITIONS.join(' to ')} (default: one ordinary table)`,
    ),
  },
  needsLedger: false,
  async run({ given: { dryRun, partitions }, database }) {
    const { schema } = database;
    const refuseOthers = async (): Promise<void> => {
      const amiss = await comparePartitions(database, partitions);
      if (amiss !== undefined) throw new Unavailable(amiss);
    };
    await refuseOthers();
    const steps = (await pendingSteps(database)).map(({ version, name }) => ({ version, name }));
    if (!dryRun) {
      await ensureSchema(database, 'run', undefined, schemaSteps(partitions));
      // Another migration may have been faster.
      await refuseOthers();
    }
    const names = steps.map(({ version, name }) => `${version} ${name}`).join(', ');
    return done(
      { schema, dryRun, steps },
      steps.length === 0
        ? `The ledger in schema "${schema}" is up to date.`
        : `${dryRun ? 'Would take' : 'Took'} ${steps.length} steps in schema "${schema}": ${names}.`,
    );
  },
});

/** Combines what the applications' doctors reported when they last started. */
const doctor = command({
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

/** All commands, in the order of the help. */
export const COMMANDS: readonly Command[] = [
  status,
  letters,
  history,
  redrive,
  redrives,
  resolve,
  discard,
  redispatch,
  prune,
  migrate,
  doctor,
];
