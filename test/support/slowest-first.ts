import { basename } from 'node:path';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** The files that take longest, in this order: they begin first, so that no worker is left with one of them at the end. */
const SLOWEST = [
  'crash-points',
  'sleeping-workers',
  'dependency-outages',
  'lost-queue',
  'locked-rows',
  'schedules',
  'shutdown',
  'unsettled-jobs',
  'on-dead-letter',
  'enqueue-many',
  'cli',
  'dependencies',
  'started-elsewhere',
  'crash',
  'enqueue',
  'silent-postgres',
  'redis-cluster',
  'redrive-many',
  'encryption',
  'untrusted-jobs',
  'signing',
  'fencing',
  'traces',
  'schema-upgrade',
];

/** The slowest files first, then the larger ones. */
export class SlowestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification): number => {
      const place = SLOWEST.indexOf(basename(moduleId, '.spec.ts'));
      return place === -1 ? SLOWEST.length : place;
    };
    return (await super.sort(files)).toSorted((one, other) => rank(one) - rank(other));
  }
}
