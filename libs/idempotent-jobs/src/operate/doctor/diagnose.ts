import { type Effect, EFFECTS, repeatableForMs } from '../../operation/effect.js';
import { sharedKeyMessage } from '../../worker/intake/shared-keys.js';
import type { AppDescription, DescribedProcessor, RemoveOnFail } from './describe-app.js';
import { type DoctorCode, type DoctorFinding, type DoctorReport, reportOf } from './doctor-report.js';

/** What a check found, and what to do about it. Without a queue and a processor it concerns the whole application. */
type Found = Pick<DoctorFinding, 'severity' | 'message' | 'fix'> &
  Partial<Pick<DoctorFinding, 'queue' | 'processor'>>;

/** One check of the doctor. */
interface Check {
  readonly code: DoctorCode;
  /** The question that it belongs to: 1 to 5. */
  readonly question: number;
  readonly find: (app: AppDescription) => readonly Found[];
}

/**
 * Looks for what makes retries unsafe. It reads declarations only: it cannot know what a handler really does, how often a
 * producer asks BullMQ to try a single job, or which processors run in other processes.
 */
export function diagnose(app: AppDescription): DoctorReport {
  return reportOf(
    CHECKS.flatMap(({ code, question, find }) =>
      find(app).map(({ severity, queue = null, processor = null, message, fix }) => ({
        code,
        severity,
        question,
        queue,
        processor,
        message,
        fix,
      })),
    ),
  );
}

const NO_CLIENT_RETRIES =
  'Switch the client’s retries off and declare clientRetries: 0; the policy of the processor retries.';
const SAY_CLIENT_RETRIES =
  'Switch the client’s retries off and declare clientRetries: 0, or declare how many there are.';

const CHECKS: readonly Check[] = [
  {
    code: 'plain-processor-on-idempotent-queue',
    question: 1,
    find: ({ plainProcessors, queues }) =>
      plainProcessors
        .filter(({ queue }) => queues.some(({ name }) => name === queue))
        .map(({ name, queue }) => ({
          severity: 'error',
          queue,
          processor: name,
          message: `${name} has @Processor("${queue}"), but the queue is registered as idempotent: it takes operations past the ledger, and nothing keeps their effects from happening twice.`,
          fix: `Give it @IdempotentProcessor("${queue}"), or a queue of its own.`,
        })),
  },
  {
    code: 'two-processors-on-queue',
    question: 1,
    find: ({ processors }) =>
      [...byQueue(processors)]
        .filter(([, rivals]) => rivals.length > 1)
        .map(([queue, rivals]) => ({
          severity: 'error',
          queue,
          processor: rivals.map(({ name }) => name).join(', '),
          message: `${rivals.map(({ name }) => name).join(' and ')} process queue "${queue}": each gets any of its jobs, and an operation may be retried under another effect and policy than it began with.`,
          fix: 'Keep one processor per queue, provided once, and let it look at job.name.',
        })),
  },
  {
    code: 'plain-processor-retries',
    question: 1,
    find: ({ plainProcessors, queues }) =>
      plainProcessors
        .filter(({ queue, attempts }) => attempts > 1 && !queues.some(({ name }) => name === queue))
        .map(({ name, queue, attempts }) => ({
          severity: 'warning',
          queue,
          processor: name,
          message: `${name} has @Processor("${queue}"), whose jobs are tried up to ${attempts} times: each attempt may repeat the effect of the one before.`,
          fix: `Register the queue with IdempotentJobsModule.registerQueue("${queue}") and give it @IdempotentProcessor("${queue}"), or set attempts to 1.`,
        })),
  },
  {
    code: 'effect-not-declared',
    question: 1,
    find: ({ processors }) =>
      processors
        .filter(({ isEffectGiven }) => !isEffectGiven)
        .map(({ name, queue }) => ({
          severity: 'warning',
          queue,
          processor: name,
          message: `${name} on queue "${queue}" does not say what kind of side effect it has; "unrepeatable" is assumed, so that every unclear ending waits for a person.`,
          fix: `Set effect to ${EFFECTS.map((effect) => `"${effect}"`).join(' or ')}.`,
        })),
  },
  {
    code: 'client-retries',
    question: 1,
    find: (app) => [
      ...app.processors.filter(retriesUnderneath).map(retriesOfProcessor),
      ...unnamed(app)
        .filter(retriesUnderneath)
        .map(({ name, clientRetries = 0 }): Found => {
          const attempts = Math.max(1, ...app.processors.map((processor) => processor.attempts));
          return {
            severity: 'warning',
            message: `Dependency "${name}" has a client that retries underneath: ${clientRetries + 1} calls for each guarded call, up to ${attempts * (clientRetries + 1)} for an operation with ${attempts} attempts, and its circuit and retry budget see one.`,
            fix: NO_CLIENT_RETRIES,
          };
        }),
    ],
  },
  {
    code: 'client-retries-unknown',
    question: 1,
    find: (app) => [
      ...app.processors
        .filter(({ clientRetries, effect }) => clientRetries === undefined && callsSomebody(effect))
        .map(({ name, queue }) => ({
          ...unknownRetries(`${name} on queue "${queue}"`),
          queue,
          processor: name,
        })),
      ...unnamed(app)
        .filter(({ clientRetries }) => clientRetries === undefined)
        .map(({ name }) => unknownRetries(`Dependency "${name}"`)),
    ],
  },
  {
    code: 'retention-too-short',
    question: 2,
    find: ({ queues }) =>
      queues.flatMap(({ name, retention }): Found[] => {
        const { completedMs, redriveWindowMs, dedupeWindowMs } = retention;
        const needed = Math.max(redriveWindowMs, dedupeWindowMs);
        if (completedMs >= needed) return [];
        const window =
          needed === redriveWindowMs ? 'dead letters may be redriven' : 'producers may ask again';
        return [
          {
            severity: 'error',
            queue: name,
            message: `Completed operations of queue "${name}" are forgotten after ${daysOf(completedMs)}, but ${window} for ${daysOf(needed)}: after that time a duplicate runs again.`,
            fix: 'Keep completed operations at least as long as the longest of the windows.',
          },
        ];
      }),
  },
  {
    code: 'schedule-shares-key',
    question: 2,
    find: ({ sharedKeys, processors }) =>
      sharedKeys.map((shared) => ({
        severity: 'warning',
        queue: shared.queue,
        processor: processors.find(({ queue }) => queue === shared.queue)?.name ?? null,
        message: sharedKeyMessage(shared),
        fix: 'Have identify make the key of job.id, which ends in the time an iteration is due, or use IdempotentQueue.schedule().',
      })),
  },
  {
    code: 'tenant-from-job-data',
    question: 3,
    find: ({ processors, resolvesTenants }) =>
      processors
        .filter(({ identifies }) => identifies)
        .map(({ name, queue }) => ({
          severity: resolvesTenants ? 'info' : 'warning',
          queue,
          processor: name,
          message: `${name} on queue "${queue}" takes the tenant from job data with identify${
            resolvesTenants ? '' : ', and nothing in this application resolves tenants'
          }: whoever can write to the queue can name any tenant.`,
          fix: 'Enqueue through IdempotentQueue, which takes the tenant from TenantContext, and drop identify once no plain job is left.',
        })),
  },
  {
    // No declaration says whose endpoint a handler calls. The hints are URLs in payloads, and what was seen at run time.
    code: 'circuit-shared-by-tenants',
    question: 3,
    find: ({ dependencies, processors }) => [
      ...processors.flatMap(circuitOfProcessor),
      ...dependencies
        .filter(({ isSharedByTenants }) => isSharedByTenants)
        .map(({ name }) =>
          sharedCircuit(
            name,
            `The circuit of dependency "${name}" has opened on the failures of one tenant alone, and held back others whose calls were answered.`,
          ),
        ),
    ],
  },
  {
    code: 'tenants-not-resolved',
    question: 3,
    find: ({ resolvesTenants }) =>
      onlyIf(!resolvesTenants, {
        severity: 'info',
        message: 'No tenants.resolve is configured: whoever enqueues must open the tenant’s frame by hand.',
        fix: 'In processes that serve requests, set forRoot({ tenants: { resolve } }) and apply TenantMiddleware. Workers need none.',
      }),
  },
  {
    code: 'unsigned-jobs-accepted',
    question: 3,
    find: ({ unsignedUntil }) =>
      onlyIf(unsignedUntil !== undefined, {
        severity: 'info',
        message: `Jobs without a signature are run until ${unsignedUntil} (signing.acceptUnsignedUntil): whoever can write to a queue can make one up until then.`,
        fix: 'Take acceptUnsignedUntil away once every process signs and no older job is left.',
      }),
  },
  {
    code: 'timeout-not-declared',
    question: 4,
    find: ({ processors }) =>
      processors
        .filter(({ isTimeoutGiven }) => !isTimeoutGiven)
        .map(({ name, queue, effect, timeoutMs }) => ({
          severity: callsSomebody(effect) ? 'warning' : 'info',
          queue,
          processor: name,
          message: `${name} on queue "${queue}" has the default timeout of ${timeoutMs} ms: a call that its client gives longer ends without an answer, and nobody knows whether it happened.`,
          fix: 'Set timeoutMs above the timeout of the client’s calls, and hand the signal to them.',
        })),
  },
  {
    code: 'failed-jobs-removed',
    question: 5,
    find: ({ processors, plainProcessors, queues }) => [
      ...queues
        .filter(({ removeOnFail }) => dropsEvidence(removeOnFail))
        .map(({ name, removeOnFail }) => ({
          ...removedFailure(`Queue "${name}"`, removeOnFail, 'defaultJobOptions'),
          queue: name,
        })),
      ...[...processors, ...plainProcessors]
        .filter(({ removeOnFail }) => dropsEvidence(removeOnFail))
        .map(({ name, queue, removeOnFail }) => ({
          ...removedFailure(`${name} on queue "${queue}"`, removeOnFail, 'worker options or queue'),
          queue,
          processor: name,
        })),
    ],
  },
  {
    code: 'trace-not-handed-on',
    question: 5,
    find: ({ handsOnTrace }) =>
      onlyIf(!handsOnTrace, {
        severity: 'info',
        message:
          'Neither tracing nor traceContext is configured: the ledger has the history of each operation, but its attempts cannot be linked to the request that asked for them.',
        fix: 'Set forRoot({ tracing: otelTracing() }) from nestjs-idempotent-jobs/otel, or forRoot({ traceContext: () => carrier }) to the id of the request.',
      }),
  },
  {
    code: 'logs-off',
    question: 5,
    find: ({ logs }) =>
      onlyIf(logs === 'none', {
        severity: 'warning',
        message: 'logs is "none": retries, doubts and deaths are not logged.',
        fix: 'Set logs to "problems", unless the application logs JobEvents itself.',
      }),
  },
];

function onlyIf(isFound: boolean, found: Found): readonly Found[] {
  return isFound ? [found] : [];
}

function retriesUnderneath({ clientRetries = 0 }: { readonly clientRetries: number | undefined }): boolean {
  return clientRetries !== 0;
}

function retriesOfProcessor(processor: DescribedProcessor): Found {
  const { name, queue, effect, attempts, clientRetries = 0 } = processor;
  // Whether an attempt may follow one whose effect may have happened.
  const isRepeatable = repeatableForMs(effect, 1) !== 0;
  const calls = `${attempts} attempts × ${clientRetries + 1} calls = up to ${attempts * (clientRetries + 1)} calls per operation`;
  const mustNot = `, though its effect is "${effect}" and must not be called twice`;
  return {
    severity: isRepeatable ? 'warning' : 'error',
    queue,
    processor: name,
    message: `${name} on queue "${queue}" has a client that retries underneath: ${calls}${isRepeatable ? '' : mustNot}.`,
    fix: NO_CLIENT_RETRIES,
  };
}

/** Dependencies that no processor names. Handlers call them by DependencyGuard, and their attempts multiply as well. */
function unnamed({ dependencies, processors }: AppDescription): AppDescription['dependencies'] {
  return dependencies.filter(({ name }) => !processors.some(({ dependency }) => dependency === name));
}

function unknownRetries(subject: string): Found {
  return {
    severity: 'info',
    message: `${subject} does not say how often its HTTP client or SDK retries by itself; many do by default.`,
    fix: SAY_CLIENT_RETRIES,
  };
}

function circuitOfProcessor(processor: DescribedProcessor): Found[] {
  const { name, queue, dependency, hasCircuitPerKey, urlFields } = processor;
  if (dependency === undefined || hasCircuitPerKey || urlFields.length === 0) return [];
  const message = `${name} on queue "${queue}" has one circuit, of dependency "${dependency}", for all operations, whose payloads name URLs (${urlFields.join(', ')}): where they are tenants' endpoints, one that fails holds all tenants back.`;
  return [{ ...sharedCircuit(dependency, message), queue, processor: name }];
}

function sharedCircuit(dependency: string, message: string): Found {
  return {
    severity: 'warning',
    message,
    fix: `Where tenants have endpoints of their own, give each a circuit: dependency: { name: "${dependency}", per: (operation) => operation.tenantId }, or the host of the endpoint; guarded calls take { per: key }.`,
  };
}

function removedFailure(subject: string, removeOnFail: RemoveOnFail, where: string): Found {
  return {
    severity: 'warning',
    message: `${subject} removes failed jobs (removeOnFail: ${JSON.stringify(removeOnFail)}): a job that BullMQ fails by itself may be gone before anybody has seen it.`,
    fix: `In its ${where}, keep them for a day: removeOnFail: { age: 86_400 }.`,
  };
}

/** An hour, or a hundred jobs: with less, failed jobs are gone before the operator who was alerted can look at them. */
const MIN_AGE_S = 60 * 60;
const MIN_COUNT = 100;

function dropsEvidence(removeOnFail: RemoveOnFail): boolean {
  if (typeof removeOnFail === 'object') {
    const { age, count } = removeOnFail as { age?: number; count?: number };
    return (age ?? MIN_AGE_S) < MIN_AGE_S || (count ?? MIN_COUNT) < MIN_COUNT;
  }
  return typeof removeOnFail === 'number' ? removeOnFail < MIN_COUNT : removeOnFail === true;
}

/** Whether the effect calls a service, whose answer could get lost. A natural or transactional effect does not. */
function callsSomebody(effect: Effect): boolean {
  return effect !== 'natural' && effect !== 'transactional';
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
