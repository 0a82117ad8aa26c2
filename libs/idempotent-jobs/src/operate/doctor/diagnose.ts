import { sharedKeyMessage } from '../../worker/intake/shared-keys.js';
import { type Effect, EFFECTS, repeatableForMs } from '../../operation/effect.js';
import type { AppDescription, DescribedProcessor, RemoveOnFail } from './app-description.js';
import { type DoctorFinding, type DoctorReport, reportOf } from './doctor-report.js';

/**
 * Looks for what makes retries unsafe. Sees declarations only: what a handler really does, how often a producer asks
 * BullMQ to try a single job, and processors of other processes are out of its sight.
 */
export function diagnose(app: AppDescription): DoctorReport {
  return reportOf(CHECKS.flatMap((check) => check(app)));
}

type Check = (app: AppDescription) => readonly DoctorFinding[];

/** 1: Can every job run a second time without harm? */

const plainProcessorsOnIdempotentQueues: Check = ({ plainProcessors, queues }) =>
  plainProcessors
    .filter(({ queue }) => queues.some(({ name }) => name === queue))
    .map(({ name, queue }) => ({
      code: 'plain-processor-on-idempotent-queue',
      severity: 'error',
      question: 1,
      queue,
      processor: name,
      message: `${name} has @Processor("${queue}"), but the queue is registered as idempotent: it takes operations past the ledger, and nothing keeps their effects from happening twice.`,
      fix: `Give it @IdempotentProcessor("${queue}"), or a queue of its own.`,
    }));

const plainProcessorsThatRetry: Check = ({ plainProcessors, queues }) =>
  plainProcessors
    .filter(({ queue, attempts }) => attempts > 1 && !queues.some(({ name }) => name === queue))
    .map(({ name, queue, attempts }) => ({
      code: 'plain-processor-retries',
      severity: 'warning',
      question: 1,
      queue,
      processor: name,
      message: `${name} has @Processor("${queue}"), whose jobs are tried up to ${attempts} times: each attempt may repeat the effect of the one before.`,
      fix: `Register the queue with IdempotentJobsModule.registerQueue("${queue}") and give it @IdempotentProcessor("${queue}"), or set attempts to 1.`,
    }));

const rivalProcessors: Check = ({ processors }) =>
  [...byQueue(processors)]
    .filter(([, rivals]) => rivals.length > 1)
    .map(([queue, rivals]) => ({
      code: 'two-processors-on-queue',
      severity: 'error',
      question: 1,
      queue,
      processor: rivals.map(({ name }) => name).join(', '),
      message: `${rivals.map(({ name }) => name).join(' and ')} process queue "${queue}": each gets any of its jobs, and an operation may be retried under another effect and policy than it began with.`,
      fix: 'Keep one processor per queue, provided once, and let it look at job.name.',
    }));

const undeclaredEffects: Check = ({ processors }) =>
  processors
    .filter(({ isEffectGiven }) => !isEffectGiven)
    .map(({ name, queue }) => ({
      code: 'effect-not-declared',
      severity: 'warning',
      question: 1,
      queue,
      processor: name,
      message: `${name} on queue "${queue}" does not say what kind of side effect it has; "unrepeatable" is assumed, so that every unclear ending waits for a person.`,
      fix: `Set effect to ${EFFECTS.map((effect) => `"${effect}"`).join(' or ')}.`,
    }));

const clientRetries: Check = ({ processors }) =>
  processors.flatMap((processor): DoctorFinding[] => {
    const { name, queue, effect, attempts, clientRetries } = processor;
    const about = { question: 1, queue, processor: name };
    if (clientRetries === undefined) {
      if (!callsSomebody(effect)) return [];
      return [
        {
          ...about,
          code: 'client-retries-unknown',
          severity: 'info',
          message: `${name} on queue "${queue}" does not say how often its HTTP client or SDK retries by itself; many do by default.`,
          fix: 'Switch the client’s retries off and declare clientRetries: 0, or declare how many there are.',
        },
      ];
    }
    if (clientRetries === 0) return [];
    const calls = attempts * (clientRetries + 1);
    return [
      {
        ...about,
        code: 'client-retries',
        severity: isRepeatable(effect) ? 'warning' : 'error',
        message: `${name} on queue "${queue}" has a client that retries underneath: ${attempts} attempts × ${clientRetries + 1} calls = up to ${calls} calls per operation${
          isRepeatable(effect) ? '' : `, though its effect is "${effect}" and must not be called twice`
        }.`,
        fix: 'Switch the client’s retries off and declare clientRetries: 0; the policy of the processor retries.',
      },
    ];
  });

/** Dependencies that no processor names are called from handlers, by DependencyGuard, whose attempts multiply as well. */
const dependencyRetries: Check = ({ dependencies, processors }) =>
  dependencies.flatMap(({ name, clientRetries }): DoctorFinding[] => {
    if (clientRetries === 0 || processors.some(({ dependency }) => dependency === name)) return [];
    if (clientRetries === undefined) return [unknownRetries(name)];
    const attempts = Math.max(1, ...processors.map((processor) => processor.attempts));
    return [
      {
        code: 'client-retries',
        severity: 'warning',
        question: 1,
        queue: null,
        processor: null,
        message: `Dependency "${name}" has a client that retries underneath: ${clientRetries + 1} calls for each guarded call, up to ${attempts * (clientRetries + 1)} for an operation with ${attempts} attempts, and its circuit and retry budget see one.`,
        fix: 'Switch the client’s retries off and declare clientRetries: 0; the policy of the processor retries.',
      },
    ];
  });

function unknownRetries(name: string): DoctorFinding {
  return {
    code: 'client-retries-unknown',
    severity: 'info',
    question: 1,
    queue: null,
    processor: null,
    message: `Dependency "${name}" does not say how often its HTTP client or SDK retries by itself; many do by default.`,
    fix: 'Switch the client’s retries off and declare clientRetries: 0, or declare how many there are.',
  };
}

/** 2: Can a retry tell that the work has been done already? */

const shortRetention: Check = ({ queues }) =>
  queues.flatMap(({ name, retention }): DoctorFinding[] => {
    const { completedMs, redriveWindowMs, dedupeWindowMs } = retention;
    const needed = Math.max(redriveWindowMs, dedupeWindowMs);
    if (completedMs >= needed) return [];
    const window = needed === redriveWindowMs ? 'dead letters may be redriven' : 'producers may ask again';
    return [
      {
        code: 'retention-too-short',
        severity: 'error',
        question: 2,
        queue: name,
        processor: null,
        message: `Completed operations of queue "${name}" are forgotten after ${daysOf(completedMs)}, but ${window} for ${daysOf(needed)}: after that time a duplicate runs again.`,
        fix: 'Keep completed operations at least as long as the longest of the windows.',
      },
    ];
  });

const schedulesThatShareKeys: Check = ({ sharedKeys, processors }) =>
  sharedKeys.map((shared) => ({
    code: 'schedule-shares-key',
    severity: 'warning',
    question: 2,
    queue: shared.queue,
    processor: processors.find(({ queue }) => queue === shared.queue)?.name ?? null,
    message: sharedKeyMessage(shared),
    fix: 'Have identify make the key of job.id, which ends in the time an iteration is due, or use IdempotentQueue.schedule().',
  }));

/** 3: Does every retry run as the tenant it belongs to? */

const tenantsFromData: Check = ({ processors, resolvesTenants }) =>
  processors
    .filter(({ identifies }) => identifies)
    .map(({ name, queue }) => ({
      code: 'tenant-from-job-data',
      severity: resolvesTenants ? 'info' : 'warning',
      question: 3,
      queue,
      processor: name,
      message: `${name} on queue "${queue}" takes the tenant from job data with identify${
        resolvesTenants ? '' : ', and nothing in this application resolves tenants'
      }: whoever can write to the queue can name any tenant.`,
      fix: 'Enqueue through IdempotentQueue, which takes the tenant from TenantContext, and drop identify once no plain job is left.',
    }));

/** Whose endpoint a handler calls is in no declaration: payloads with URLs say so, and what was seen at run time. */
const circuitsSharedByTenants: Check = ({ dependencies, processors }) => [
  ...processors
    .filter(
      ({ dependency, hasCircuitPerKey, urlFields }) =>
        dependency !== undefined && !hasCircuitPerKey && urlFields.length > 0,
    )
    .map(({ name, queue, dependency = '', urlFields }) =>
      sharedCircuit(
        dependency,
        { queue, processor: name },
        `${name} on queue "${queue}" has one circuit, of dependency "${dependency}", for all operations, whose payloads name URLs (${urlFields.join(', ')}): where they are tenants' endpoints, one that fails holds all tenants back.`,
      ),
    ),
  ...dependencies
    .filter(({ isSharedByTenants }) => isSharedByTenants)
    .map(({ name }) =>
      sharedCircuit(
        name,
        { queue: null, processor: null },
        `The circuit of dependency "${name}" has opened on the failures of one tenant alone, and held back others whose calls were answered.`,
      ),
    ),
];

function sharedCircuit(
  dependency: string,
  about: Pick<DoctorFinding, 'queue' | 'processor'>,
  message: string,
): DoctorFinding {
  return {
    ...about,
    code: 'circuit-shared-by-tenants',
    severity: 'warning',
    question: 3,
    message,
    fix: `Where tenants have endpoints of their own, give each a circuit: dependency: { name: "${dependency}", per: (operation) => operation.tenantId }, or the host of the endpoint; guarded calls take { per: key }.`,
  };
}

const unresolvedTenants: Check = ({ resolvesTenants }) =>
  resolvesTenants
    ? []
    : [
        {
          code: 'tenants-not-resolved',
          severity: 'info',
          question: 3,
          queue: null,
          processor: null,
          message: 'No tenants.resolve is configured: whoever enqueues must open the tenant’s frame by hand.',
          fix: 'In processes that serve requests, set forRoot({ tenants: { resolve } }) and apply TenantMiddleware. Workers need none.',
        },
      ];

const unsignedJobs: Check = ({ unsignedUntil }) =>
  unsignedUntil === undefined
    ? []
    : [
        {
          code: 'unsigned-jobs-accepted',
          severity: 'info',
          question: 3,
          queue: null,
          processor: null,
          message: `Jobs without a signature are run until ${unsignedUntil} (signing.acceptUnsignedUntil): whoever can write to a queue can make one up until then.`,
          fix: 'Take acceptUnsignedUntil away once every process signs and no older job is left.',
        },
      ];

/** 4: Is success recorded only when the outcome is certain? */

const undeclaredTimeouts: Check = ({ processors }) =>
  processors
    .filter(({ isTimeoutGiven }) => !isTimeoutGiven)
    .map(({ name, queue, effect, timeoutMs }) => ({
      code: 'timeout-not-declared',
      severity: callsSomebody(effect) ? 'warning' : 'info',
      question: 4,
      queue,
      processor: name,
      message: `${name} on queue "${queue}" has the default timeout of ${timeoutMs} ms: a call that its client gives longer ends without an answer, and nobody knows whether it happened.`,
      fix: 'Set timeoutMs above the timeout of the client’s calls, and hand the signal to them.',
    }));

/** 5: Can an operation be followed across its attempts? */

const removedFailures: Check = ({ processors, plainProcessors, queues }) => [
  ...queues
    .filter(({ removeOnFail }) => dropsEvidence(removeOnFail))
    .map(({ name, removeOnFail }) =>
      removedFailure(name, null, `Queue "${name}"`, removeOnFail, 'defaultJobOptions'),
    ),
  ...[...processors, ...plainProcessors]
    .filter(({ removeOnFail }) => dropsEvidence(removeOnFail))
    .map(({ name, queue, removeOnFail }) =>
      removedFailure(queue, name, `${name} on queue "${queue}"`, removeOnFail, 'worker options or queue'),
    ),
];

function removedFailure(
  queue: string,
  processor: string | null,
  subject: string,
  removeOnFail: RemoveOnFail,
  where: string,
): DoctorFinding {
  return {
    code: 'failed-jobs-removed',
    severity: 'warning',
    question: 5,
    queue,
    processor,
    message: `${subject} removes failed jobs (removeOnFail: ${JSON.stringify(removeOnFail)}): a job that BullMQ fails by itself may be gone before anybody has seen it.`,
    fix: `In its ${where}, keep them for a day: removeOnFail: { age: 86_400 }.`,
  };
}

const missingTrace: Check = ({ handsOnTrace }) =>
  handsOnTrace
    ? []
    : [
        {
          code: 'trace-not-handed-on',
          severity: 'info',
          question: 5,
          queue: null,
          processor: null,
          message:
            'Neither tracing nor traceContext is configured: the ledger has the history of each operation, but its attempts cannot be linked to the request that asked for them.',
          fix: 'Set forRoot({ tracing: otelTracing() }) from nestjs-idempotent-jobs/otel, or forRoot({ traceContext: () => carrier }) to the id of the request.',
        },
      ];

const missingLogs: Check = ({ logs }) =>
  logs === 'none'
    ? [
        {
          code: 'logs-off',
          severity: 'warning',
          question: 5,
          queue: null,
          processor: null,
          message: 'logs is "none": retries, doubts and deaths are not logged.',
          fix: 'Set logs to "problems", unless the application logs JobEvents itself.',
        },
      ]
    : [];

const CHECKS: readonly Check[] = [
  plainProcessorsOnIdempotentQueues,
  rivalProcessors,
  plainProcessorsThatRetry,
  undeclaredEffects,
  clientRetries,
  dependencyRetries,
  shortRetention,
  schedulesThatShareKeys,
  tenantsFromData,
  circuitsSharedByTenants,
  unresolvedTenants,
  unsignedJobs,
  undeclaredTimeouts,
  removedFailures,
  missingTrace,
  missingLogs,
];

/** An hour, or a hundred jobs: less is gone before anybody who was alerted looks. */
const MIN_AGE_S = 60 * 60;
const MIN_COUNT = 100;

function dropsEvidence(removeOnFail: RemoveOnFail): boolean {
  if (typeof removeOnFail === 'object') {
    const { age, count } = removeOnFail as { age?: number; count?: number };
    return (age ?? MIN_AGE_S) < MIN_AGE_S || (count ?? MIN_COUNT) < MIN_COUNT;
  }
  return typeof removeOnFail === 'number' ? removeOnFail < MIN_COUNT : removeOnFail === true;
}

/** What is natural or a transaction has no service behind it whose answer could get lost. */
function callsSomebody(effect: Effect): boolean {
  return effect !== 'natural' && effect !== 'transactional';
}

/** Whether an attempt may follow one whose effect may have happened. */
function isRepeatable(effect: Effect): boolean {
  return repeatableForMs(effect, 1) !== 0;
}

function byQueue(processors: readonly DescribedProcessor[]): Map<string, DescribedProcessor[]> {
  const queues = new Map<string, DescribedProcessor[]>();
  for (const processor of processors) {
    queues.set(processor.queue, [...(queues.get(processor.queue) ?? []), processor]);
  }
  return queues;
}

function daysOf(ms: number): string {
  const days = ms / (24 * 60 * 60 * 1000);
  return days >= 1 ? `${Math.round(days * 10) / 10} days` : `${Math.round(ms / 1000)} s`;
}
