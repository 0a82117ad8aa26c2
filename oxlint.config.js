// @ts-check
import { defineConfig } from 'oxlint';

/** The rooms of the library, lowest floor first: each may import those before it, and none after it. */
const FLOORS = [
  'operation',
  'events',
  'tracing',
  'option-checks',
  'resilience',
  'tenancy',
  'ledger',
  'bullmq',
  'producer',
  'observe',
  'dead-letters',
  'dispatch',
  'worker',
  'outcome',
  'calls',
  'operate',
  'otel',
  'prometheus',
  'module',
];

/** Likewise inside of a room: its folders, and the file that knows their order. */
const INNER_FLOORS = {
  ledger: ['postgres/', 'encryption/', 'claim/', 'record/'],
  worker: ['identify/', 'rules/', 'attempt/', 'intake/', 'acknowledge/', 'pipeline.js', 'host/', 'recovery/'],
};

/** Forbids imports of what stands above; each name is the beginning of a path from the folder that holds the floors. */
function above(names) {
  if (names.length === 0) return [];
  const path = names.map((name) => name.replace('.', '\\.')).join('|');
  const message = 'This import goes up to a higher floor: see docs/architecture.md#floors.';
  return [{ regex: `^(?:\\./|(?:\\.\\./)+)(?:${path})`, message }];
}

function floor(files, patterns) {
  return {
    files: [`libs/idempotent-jobs/src/${files}`],
    excludeFiles: ['**/*.spec.ts'],
    rules: { 'no-restricted-imports': ['error', { patterns }] },
  };
}

const floors = FLOORS.slice(0, -1).flatMap((room, index) => {
  const higher = above(FLOORS.slice(index + 1).map((name) => `${name}/`));
  const inner = INNER_FLOORS[room] ?? [];
  return [
    floor(`${room}/**`, higher),
    ...inner.map((name, place) => {
      const files = name.endsWith('/') ? `${name}**` : name.replace('.js', '.ts');
      return floor(`${room}/${files}`, [...higher, ...above(inner.slice(place + 1))]);
    }),
  ];
});

export default defineConfig({
  plugins: ['typescript', 'unicorn', 'oxc', 'import'],
  categories: { correctness: 'error', suspicious: 'error' },
  rules: {
    'typescript/no-floating-promises': 'error',
    'typescript/no-misused-promises': 'error',
    'typescript/await-thenable': 'error',
    'typescript/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
    'typescript/no-extraneous-class': 'off',
    'unicorn/consistent-function-scoping': 'off',
    'no-shadow': 'off',
    'no-await-in-loop': 'off',
    'typescript/no-unsafe-type-assertion': 'off',
    'import/no-unassigned-import': 'off',
    'unicorn/no-array-sort': 'off',
    'no-underscore-dangle': 'off',
    'import/no-named-as-default-member': 'off',
    'import/no-cycle': 'error',
  },
  overrides: floors,
  ignorePatterns: ['**/dist/**', 'libs/idempotent-jobs/cjs/**', 'test/consumer/**', '**/node_modules/**'],
});
