import { describe, expect, it } from 'vitest';
import { OPERATION_STATUSES } from '../operation/status.js';
import { DEAD_LETTER_REASONS } from '../operation/reasons.js';
import {
  type Intent,
  judge,
  judgeReport,
  type LetterFacts,
  type OperationFacts,
  type Report,
  type ReportJudgement,
} from './judge-letter.js';

const OPEN: LetterFacts = {
  isResolved: false,
  identity: { tenantId: 'acme', operationKey: 'charge:1' },
  reason: 'retries_exhausted',
  hasPayload: true,
  isOfJob: true,
};

const LETTERS: Readonly<Record<string, LetterFacts>> = {
  'an open letter': OPEN,
  'one without its payload': { ...OPEN, hasPayload: false },
  'a step’s or a call’s': { ...OPEN, hasPayload: false, isOfJob: false },
  'one of a doubt': { ...OPEN, reason: 'in_doubt' },
  'one of an expired job': { ...OPEN, reason: 'expired' },
  'one of a conflict': { ...OPEN, reason: 'idempotency_conflict' },
  'one without identity': { ...OPEN, reason: 'identity_missing', identity: null },
  'a resolved one': { ...OPEN, isResolved: true },
};

const DEAD: OperationFacts = {
  status: 'dead',
  isAnotherRequest: false,
  isDoubtful: false,
  isLookedUp: false,
  isPastDeadline: false,
  wasClaimed: true,
  isUnderLease: false,
  wasStartedSince: false,
};

const UNDER_WAY: Readonly<Record<string, OperationFacts>> = {
  'accepted, never claimed': { ...DEAD, status: 'pending', wasClaimed: false },
  'waiting after it was brought back': { ...DEAD, status: 'pending' },
  'waiting for its next attempt': { ...DEAD, status: 'retrying' },
  'waiting for its next attempt, the last one in doubt': { ...DEAD, status: 'retrying', isDoubtful: true },
  'running under a live lease': { ...DEAD, status: 'running', isUnderLease: true },
  'running, its lease over': { ...DEAD, status: 'running' },
};

const IN_DOUBT: Readonly<Record<string, OperationFacts>> = {
  'in doubt, waiting for a person': { ...DEAD, status: 'in_doubt', isDoubtful: true },
  'in doubt, to be asked about': { ...DEAD, status: 'in_doubt', isDoubtful: true, isLookedUp: true },
  'in doubt, being asked about': { ...DEAD, status: 'in_doubt', isDoubtful: true, isUnderLease: true },
};

const OPERATIONS: Readonly<Record<string, OperationFacts | null>> = {
  'no row': null,
  ...UNDER_WAY,
  ...IN_DOUBT,
  completed: { ...DEAD, status: 'completed' },
  dead: DEAD,
  'dead, may have happened': { ...DEAD, isDoubtful: true },
  'dead, is looked up': { ...DEAD, isLookedUp: true },
  'dead, past its deadline': { ...DEAD, isPastDeadline: true },
  'dead, past it, may have happened': { ...DEAD, isPastDeadline: true, isDoubtful: true },
  'another’s, under way': { ...DEAD, status: 'running', isUnderLease: true, isAnotherRequest: true },
  'another’s, in doubt': { ...DEAD, status: 'in_doubt', isDoubtful: true, isAnotherRequest: true },
  'another’s, completed': { ...DEAD, status: 'completed', isAnotherRequest: true },
  'another’s, dead': { ...DEAD, isAnotherRequest: true },
};

/** Operations that are judged alike, for a row of a table. */
const GROUPS: Readonly<Record<string, readonly string[]>> = {
  'under way': Object.keys(UNDER_WAY),
  'in doubt': Object.keys(IN_DOUBT),
  any: Object.keys(OPERATIONS),
};

const LATER = new Date('2031-01-01');

const INTENTS: Readonly<Record<string, Intent>> = {
  redrive: { kind: 'redrive' },
  'redrive, new deadline': { kind: 'redrive', deadline: LATER },
  applied: { kind: 'applied', result: '{"paid":true}' },
  'not applied': { kind: 'not_applied' },
  'not applied, new deadline': { kind: 'not_applied', deadline: LATER },
  discard: { kind: 'discard' },
  edited: { kind: 'edited' },
};

/** How an intent closes a letter, unless its cell says otherwise. */
const CLOSED_AS: Readonly<Record<string, string>> = {
  redrive: 'redriven',
  applied: 'applied',
  not_applied: 'not_applied',
  discard: 'discarded',
  edited: 'redriven',
};

const WHAT_PEOPLE_WANT = `
letter                  | operation                        | redrive               | redrive, new deadline | applied           | not applied         | not applied, new deadline | discard    | edited
an open letter          | no row                           | run again             | run again             | no: not_in_doubt  | no: not_in_doubt    | no: not_in_doubt          | close      | close
an open letter          | under way                        | no: under_way         | no: under_way         | no: under_way     | no: under_way       | no: under_way             | close      | no: under_way
an open letter          | in doubt                         | no: in_doubt          | no: in_doubt          | complete          | run again           | run again                 | give up    | no: in_doubt
an open letter          | completed                        | close as completed    | close as completed    | no: has_completed | no: has_completed   | no: has_completed         | close      | no: has_completed
an open letter          | dead                             | run again             | run again             | no: not_in_doubt  | no: not_in_doubt    | no: not_in_doubt          | give up    | replace
an open letter          | dead, may have happened          | run again, in doubt   | run again, in doubt   | complete          | run again           | run again                 | give up    | replace
an open letter          | dead, is looked up               | run again, in doubt   | run again, in doubt   | no: not_in_doubt  | no: not_in_doubt    | no: not_in_doubt          | give up    | replace
an open letter          | dead, past its deadline          | no: deadline_passed   | run again             | no: not_in_doubt  | no: not_in_doubt    | no: not_in_doubt          | give up    | replace
an open letter          | dead, past it, may have happened | no: deadline_passed   | run again, in doubt   | complete          | no: deadline_passed | run again                 | give up    | replace
an open letter          | another’s, under way             | no: conflict          | no: conflict          | no: conflict      | no: conflict        | no: conflict              | close      | no: under_way
an open letter          | another’s, in doubt              | no: conflict          | no: conflict          | no: conflict      | no: conflict        | no: conflict              | give up    | no: in_doubt
an open letter          | another’s, completed             | no: conflict          | no: conflict          | no: conflict      | no: conflict        | no: conflict              | close      | no: has_completed
an open letter          | another’s, dead                  | no: conflict          | no: conflict          | no: conflict      | no: conflict        | no: conflict              | give up    | replace
one without its payload | no row                           | no: no_payload        | no: no_payload        | no: not_in_doubt  | no: not_in_doubt    | no: not_in_doubt          | close      | close
one without its payload | under way                        | no: under_way         | no: under_way         | no: under_way     | no: under_way       | no: under_way             | close      | no: under_way
one without its payload | in doubt                         | no: in_doubt          | no: in_doubt          | complete          | no: no_payload      | no: no_payload            | give up    | no: in_doubt
one without its payload | completed                        | close as completed    | close as completed    | no: has_completed | no: has_completed   | no: has_completed         | close      | no: has_completed
one without its payload | dead                             | no: no_payload        | no: no_payload        | no: not_in_doubt  | no: not_in_doubt    | no: not_in_doubt          | give up    | replace
one without its payload | dead, may have happened          | no: no_payload        | no: no_payload        | complete          | no: no_payload      | no: no_payload            | give up    | replace
one without its payload | dead, is looked up               | no: no_payload        | no: no_payload        | no: not_in_doubt  | no: not_in_doubt    | no: not_in_doubt          | give up    | replace
one without its payload | dead, past its deadline          | no: no_payload        | no: no_payload        | no: not_in_doubt  | no: not_in_doubt    | no: not_in_doubt          | give up    | replace
one without its payload | dead, past it, may have happened | no: no_payload        | no: no_payload        | complete          | no: no_payload      | no: no_payload            | give up    | replace
one without its payload | another’s, under way             | no: conflict          | no: conflict          | no: conflict      | no: conflict        | no: conflict              | close      | no: under_way
one without its payload | another’s, in doubt              | no: conflict          | no: conflict          | no: conflict      | no: conflict        | no: conflict              | give up    | no: in_doubt
one without its payload | another’s, completed             | no: conflict          | no: conflict          | no: conflict      | no: conflict        | no: conflict              | close      | no: has_completed
one without its payload | another’s, dead                  | no: conflict          | no: conflict          | no: conflict      | no: conflict        | no: conflict              | give up    | replace
a step’s or a call’s    | no row                           | run again             | run again             | no: not_in_doubt  | no: not_in_doubt    | no: not_in_doubt          | close      | close
a step’s or a call’s    | under way                        | no: under_way         | no: under_way         | no: under_way     | no: under_way       | no: under_way             | close      | no: under_way
a step’s or a call’s    | in doubt                         | no: in_doubt          | no: in_doubt          | complete          | run again           | run again                 | give up    | no: in_doubt
a step’s or a call’s    | completed                        | close as completed    | close as completed    | no: has_completed | no: has_completed   | no: has_completed         | close      | no: has_completed
a step’s or a call’s    | dead                             | run again             | run again             | no: not_in_doubt  | no: not_in_doubt    | no: not_in_doubt          | give up    | replace
a step’s or a call’s    | dead, may have happened          | run again, in doubt   | run again, in doubt   | complete          | run again           | run again                 | give up    | replace
a step’s or a call’s    | dead, is looked up               | run again, in doubt   | run again, in doubt   | no: not_in_doubt  | no: not_in_doubt    | no: not_in_doubt          | give up    | replace
a step’s or a call’s    | dead, past its deadline          | no: deadline_passed   | run again             | no: not_in_doubt  | no: not_in_doubt    | no: not_in_doubt          | give up    | replace
a step’s or a call’s    | dead, past it, may have happened | no: deadline_passed   | run again, in doubt   | complete          | no: deadline_passed | run again                 | give up    | replace
a step’s or a call’s    | another’s, under way             | no: conflict          | no: conflict          | no: conflict      | no: conflict        | no: conflict              | close      | no: under_way
a step’s or a call’s    | another’s, in doubt              | no: conflict          | no: conflict          | no: conflict      | no: conflict        | no: conflict              | give up    | no: in_doubt
a step’s or a call’s    | another’s, completed             | no: conflict          | no: conflict          | no: conflict      | no: conflict        | no: conflict              | close      | no: has_completed
a step’s or a call’s    | another’s, dead                  | no: conflict          | no: conflict          | no: conflict      | no: conflict        | no: conflict              | give up    | replace
one of a doubt          | no row                           | no: in_doubt          | no: in_doubt          | complete          | run again           | run again                 | close      | no: in_doubt
one of a doubt          | under way                        | no: under_way         | no: under_way         | no: under_way     | no: under_way       | no: under_way             | close      | no: under_way
one of a doubt          | in doubt                         | no: in_doubt          | no: in_doubt          | complete          | run again           | run again                 | give up    | no: in_doubt
one of a doubt          | completed                        | close as completed    | close as completed    | no: has_completed | no: has_completed   | no: has_completed         | close      | no: has_completed
one of a doubt          | dead                             | run again             | run again             | no: not_in_doubt  | no: not_in_doubt    | no: not_in_doubt          | give up    | no: in_doubt
one of a doubt          | dead, may have happened          | run again, in doubt   | run again, in doubt   | complete          | run again           | run again                 | give up    | no: in_doubt
one of a doubt          | dead, is looked up               | run again, in doubt   | run again, in doubt   | no: not_in_doubt  | no: not_in_doubt    | no: not_in_doubt          | give up    | no: in_doubt
one of a doubt          | dead, past its deadline          | no: deadline_passed   | run again             | no: not_in_doubt  | no: not_in_doubt    | no: not_in_doubt          | give up    | no: in_doubt
one of a doubt          | dead, past it, may have happened | no: deadline_passed   | run again, in doubt   | complete          | no: deadline_passed | run again                 | give up    | no: in_doubt
one of a doubt          | another’s, under way             | no: conflict          | no: conflict          | no: conflict      | no: conflict        | no: conflict              | close      | no: under_way
one of a doubt          | another’s, in doubt              | no: conflict          | no: conflict          | no: conflict      | no: conflict        | no: conflict              | give up    | no: in_doubt
one of a doubt          | another’s, completed             | no: conflict          | no: conflict          | no: conflict      | no: conflict        | no: conflict              | close      | no: has_completed
one of a doubt          | another’s, dead                  | no: conflict          | no: conflict          | no: conflict      | no: conflict        | no: conflict              | give up    | no: in_doubt
one of an expired job   | no row                           | no: in_doubt          | no: in_doubt          | complete          | run again           | run again                 | close      | no: in_doubt
one of an expired job   | under way                        | no: under_way         | no: under_way         | no: under_way     | no: under_way       | no: under_way             | close      | no: under_way
one of an expired job   | in doubt                         | no: in_doubt          | no: in_doubt          | complete          | run again           | run again                 | close      | no: in_doubt
one of an expired job   | completed                        | close as completed    | close as completed    | no: has_completed | no: has_completed   | no: has_completed         | close      | no: has_completed
one of an expired job   | dead                             | no: in_doubt          | no: in_doubt          | complete          | run again           | run again                 | close      | no: in_doubt
one of an expired job   | dead, may have happened          | no: in_doubt          | no: in_doubt          | complete          | run again           | run again                 | close      | no: in_doubt
one of an expired job   | dead, is looked up               | no: in_doubt          | no: in_doubt          | complete          | run again           | run again                 | close      | no: in_doubt
one of an expired job   | dead, past its deadline          | no: in_doubt          | no: in_doubt          | complete          | no: deadline_passed | run again                 | close      | no: in_doubt
one of an expired job   | dead, past it, may have happened | no: in_doubt          | no: in_doubt          | complete          | no: deadline_passed | run again                 | close      | no: in_doubt
one of an expired job   | another’s, under way             | no: conflict          | no: conflict          | no: conflict      | no: conflict        | no: conflict              | close      | no: under_way
one of an expired job   | another’s, in doubt              | no: conflict          | no: conflict          | no: conflict      | no: conflict        | no: conflict              | close      | no: in_doubt
one of an expired job   | another’s, completed             | no: conflict          | no: conflict          | no: conflict      | no: conflict        | no: conflict              | close      | no: has_completed
one of an expired job   | another’s, dead                  | no: conflict          | no: conflict          | no: conflict      | no: conflict        | no: conflict              | close      | no: in_doubt
one of a conflict       | any                              | no: conflict          | no: conflict          | no: conflict      | no: conflict        | no: conflict              | close      | close
one without identity    | no row                           | no: no_identity       | no: no_identity       | no: no_identity   | no: no_identity     | no: no_identity           | close      | close
a resolved one          | any                              | no: resolved          | no: resolved          | no: resolved      | no: resolved        | no: resolved              | no: resolved | no: resolved
`;

const REPORTS: Readonly<Record<string, Report>> = {
  applied: { kind: 'applied', result: '{"paid":true}' },
  'not applied': { kind: 'not_applied' },
  'not applied, but of a time before the last attempt': { kind: 'not_applied' },
};

/** Of the letters above, those that an operation may have open. */
const WHAT_WEBHOOKS_SAY = `
letter                  | operation                                           | applied              | not applied          | not applied, but of a time before the last attempt
no letter               | accepted, never claimed                             | nothing: not_started | nothing: not_started | nothing: not_started
no letter               | waiting after it was brought back                   | complete             | nothing: no_doubt    | nothing: outdated
no letter               | waiting for its next attempt                        | complete             | nothing: no_doubt    | nothing: outdated
no letter               | waiting for its next attempt, the last one in doubt | complete             | put back             | nothing: outdated
no letter               | running under a live lease                          | complete             | nothing: under_way   | nothing: outdated
no letter               | running, its lease over                             | complete             | put back             | nothing: outdated
no letter               | in doubt                                            | complete             | put back             | nothing: outdated
no letter               | completed                                           | nothing: completed   | nothing: completed   | nothing: completed
no letter               | dead                                                | complete             | nothing: dead        | nothing: outdated
no letter               | dead, may have happened                             | complete             | nothing: dead        | nothing: outdated
no letter               | dead, is looked up                                  | complete             | nothing: dead        | nothing: outdated
no letter               | dead, past its deadline                             | complete             | nothing: dead        | nothing: outdated
no letter               | dead, past it, may have happened                    | complete             | nothing: dead        | nothing: outdated
an open letter          | accepted, never claimed                             | nothing: not_started | nothing: not_started | nothing: not_started
an open letter          | waiting after it was brought back                   | complete             | nothing: under_way   | nothing: outdated
an open letter          | waiting for its next attempt                        | complete             | nothing: under_way   | nothing: outdated
an open letter          | waiting for its next attempt, the last one in doubt | complete             | nothing: under_way   | nothing: outdated
an open letter          | running under a live lease                          | complete             | nothing: under_way   | nothing: outdated
an open letter          | running, its lease over                             | complete             | nothing: under_way   | nothing: outdated
an open letter          | in doubt                                            | complete             | run again            | nothing: outdated
an open letter          | completed                                           | nothing: completed   | nothing: completed   | nothing: completed
an open letter          | dead                                                | complete             | nothing: dead        | nothing: outdated
an open letter          | dead, may have happened                             | complete             | run again            | nothing: outdated
an open letter          | dead, is looked up                                  | complete             | nothing: dead        | nothing: outdated
an open letter          | dead, past its deadline                             | complete             | nothing: dead        | nothing: outdated
an open letter          | dead, past it, may have happened                    | complete             | no: deadline_passed  | nothing: outdated
an open letter          | another’s, under way                                | complete             | nothing: under_way   | nothing: outdated
an open letter          | another’s, in doubt                                 | complete             | no: conflict         | nothing: outdated
an open letter          | another’s, completed                                | nothing: completed   | nothing: completed   | nothing: completed
an open letter          | another’s, dead                                     | complete             | no: conflict         | nothing: outdated
one of a doubt          | in doubt                                            | complete             | run again            | nothing: outdated
one of a doubt          | dead, may have happened                             | complete             | run again            | nothing: outdated
one without its payload | in doubt                                            | complete             | no: no_payload       | nothing: outdated
one without its payload | dead, may have happened                             | complete             | no: no_payload       | nothing: outdated
a step’s or a call’s    | in doubt                                            | complete             | run again            | nothing: outdated
a step’s or a call’s    | dead, may have happened                             | complete             | run again            | nothing: outdated
`;

interface Cell {
  readonly letter: string;
  readonly operation: string;
  readonly column: string;
  readonly answer: string;
}

function cellsOf(table: string): Cell[] {
  const [[, , ...columns] = [], ...rows] = table
    .trim()
    .split('\n')
    .map((line) => line.split('|').map((cell) => cell.trim()));
  return rows.flatMap(([letter = '', operation = '', ...answers]) =>
    (GROUPS[operation] ?? [operation]).flatMap((named) =>
      columns.map((column, index) => ({ letter, operation: named, column, answer: answers[index] ?? '' })),
    ),
  );
}

function named<T>(all: Readonly<Record<string, T>>, name: string): T {
  const found = Object.entries(all).find(([key]) => key === name);
  if (found === undefined) throw new Error(`The table names "${name}", which there is not.`);
  return found[1];
}

function inWords(judgement: ReportJudgement, closedAs: string | undefined): string {
  switch (judgement.kind) {
    case 'refused':
      return `no: ${judgement.reason}`;
    case 'nothing':
      return `nothing: ${judgement.reason}`;
    case 'leave':
      return judgement.as === closedAs ? 'close' : `close as ${judgement.as}`;
    case 'run_again':
    case 'complete':
    case 'give_up':
    case 'replace':
    case 'put_back': {
      const doubt = judgement.kind === 'run_again' && judgement.keepsDoubt ? ', in doubt' : '';
      const wrong = judgement.as === closedAs ? '' : ` (the letter: ${judgement.as})`;
      return `${judgement.kind.replace('_', ' ')}${doubt}${wrong}`;
    }
    default:
      return judgement satisfies never;
  }
}

const WANTED = cellsOf(WHAT_PEOPLE_WANT);
const SAID = cellsOf(WHAT_WEBHOOKS_SAY);

describe('judge', () => {
  it.each(WANTED)('$letter; its operation $operation; $column → $answer', (cell) => {
    const letter = named(LETTERS, cell.letter);
    const operation = named(OPERATIONS, cell.operation);
    const intent = named(INTENTS, cell.column);
    expect(inWords(judge({ letter, operation }, intent), CLOSED_AS[intent.kind])).toBe(cell.answer);
  });

  it('has been asked about every letter, every operation and every intent, each once', () => {
    const asked = WANTED.map(({ letter, operation, column }) => `${letter}/${operation}/${column}`);
    const every = Object.entries(LETTERS).flatMap(([letter, { identity }]) =>
      // Without an identity there is nothing to find an operation by.
      (identity === null ? ['no row'] : Object.keys(OPERATIONS)).flatMap((operation) =>
        Object.keys(INTENTS).map((column) => `${letter}/${operation}/${column}`),
      ),
    );
    expect(asked.toSorted()).toEqual(every.toSorted());
    const statuses = Object.values(OPERATIONS).map((operation) => operation?.status);
    expect(new Set(statuses)).toEqual(new Set([undefined, ...OPERATION_STATUSES]));
  });

  it.each(DEAD_LETTER_REASONS)(
    'redrives a dead operation given up as %s, or says what is to be done first',
    (reason) => {
      const refusals: Readonly<Record<string, string>> = {
        idempotency_conflict: 'no: conflict',
        expired: 'no: in_doubt',
      };
      const judgement = judge({ letter: { ...OPEN, reason }, operation: DEAD }, { kind: 'redrive' });
      expect(inWords(judgement, 'redriven')).toBe(refusals[reason] ?? 'run again');
    },
  );

  it('hands on the deadline and the result that it was given', () => {
    expect(judge({ letter: OPEN, operation: DEAD }, { kind: 'redrive', deadline: LATER })).toMatchObject({
      deadline: LATER,
    });
    const operation = { ...DEAD, isDoubtful: true };
    const result = '{"paid":true}';
    expect(judge({ letter: OPEN, operation }, { kind: 'applied', result })).toMatchObject({ result });
    expect(judgeReport({ letter: null, operation }, { kind: 'applied', result })).toMatchObject({ result });
  });
});

describe('judgeReport', () => {
  it.each(SAID)('$letter; the operation $operation; $column → $answer', (cell) => {
    const letter = cell.letter === 'no letter' ? null : named(LETTERS, cell.letter);
    const wasStartedSince = cell.column.includes('before the last attempt');
    const operation = { ...(named(OPERATIONS, cell.operation) as OperationFacts), wasStartedSince };
    const report = named(REPORTS, cell.column);
    expect(inWords(judgeReport({ letter, operation }, report), report.kind)).toBe(cell.answer);
  });

  it('has been asked about every operation, with a letter and without, each report once', () => {
    const asked = SAID.map(({ letter, operation, column }) => `${letter}/${operation}/${column}`);
    const existing = Object.keys(OPERATIONS).filter((operation) => operation !== 'no row');
    const every = ['no letter', 'an open letter'].flatMap((letter) =>
      existing
        // Without a letter nobody else's request is meant.
        .filter((operation) => letter !== 'no letter' || !operation.startsWith('another’s'))
        .flatMap((operation) => Object.keys(REPORTS).map((column) => `${letter}/${operation}/${column}`)),
    );
    expect(new Set(asked).size).toBe(asked.length);
    expect(asked).toEqual(expect.arrayContaining(every));
  });
});
