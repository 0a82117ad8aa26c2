import {
  type CanActivate,
  Injectable,
  type NestInterceptor,
  SetMetadata,
  UseGuards,
  UseInterceptors,
} from '@nestjs/common';
import { GUARDS_METADATA, INTERCEPTORS_METADATA, PROPERTY_DEPS_METADATA } from '@nestjs/common/constants.js';
import { WorkerHost } from '@nestjs/bullmq';
import type { Job } from 'bullmq';
import { describe, expect, it } from 'vitest';
import { backoffStrategy } from '../../bullmq/error-for-bullmq.js';
import { ConfigurationError, UsageError } from '../../operation/errors.js';
import { Reconciliation } from '../../operation/effect.js';
import { IdempotencyInterceptor } from '../intake/idempotency.interceptor.js';
import { IdempotentProcessor } from './idempotent-processor.decorator.js';
import { PROCESSOR_DECLARATION, type ProcessorDeclaration } from '../rules/processor.options.js';
import { ProcessorHost } from './processor-host.js';

@Injectable()
class Logging implements NestInterceptor {
  intercept: NestInterceptor['intercept'] = (_context, next) => next.handle();
}

@Injectable()
class Timing implements NestInterceptor {
  intercept: NestInterceptor['intercept'] = (_context, next) => next.handle();
}

@Injectable()
class Gate implements CanActivate {
  canActivate = (): boolean => true;
}

const job = { id: '1', data: {} } as Job;
const interceptorsOf = (target: object): unknown => Reflect.getMetadata(INTERCEPTORS_METADATA, target);
const declarationOf = (target: object): ProcessorDeclaration =>
  Reflect.getMetadata(PROCESSOR_DECLARATION, target) as ProcessorDeclaration;
const processOf = (target: { prototype: object }): Function =>
  (target.prototype as { process: Function }).process;
const workerOptionsOf = (target: object): Record<string, unknown> =>
  Reflect.getMetadata('bullmq:worker_metadata', target) as Record<string, unknown>;

@IdempotentProcessor('charges', { effect: 'keyed', timeoutMs: 5_000 }, { concurrency: 20 })
class Charges extends WorkerHost {
  async process(_job: Job): Promise<string> {
    return 'charged';
  }
}

describe('@IdempotentProcessor: what it leaves on the class', () => {
  it('declares queue and options, and that the library starts the worker', () => {
    expect(declarationOf(Charges)).toEqual({
      queue: 'charges',
      options: { effect: 'keyed', timeoutMs: 5_000 },
      isStarted: true,
      canReconcile: false,
      hasFallback: false,
      limitsStalls: false,
    });
  });

  it('declares that the class can be asked about a doubt where it has a reconcile() of its own or of its base', () => {
    @IdempotentProcessor('charges')
    class Asked extends WorkerHost {
      async process(): Promise<void> {}
      reconcile(): Reconciliation {
        return Reconciliation.unknown();
      }
    }
    @IdempotentProcessor('refunds')
    class Derived extends Asked {}
    expect(declarationOf(Asked).canReconcile).toBe(true);
    expect(declarationOf(Derived).canReconcile).toBe(true);
  });

  it('takes a reconcile that is no method for none', () => {
    abstract class Base extends WorkerHost {
      async process(): Promise<void> {}
    }
    Object.assign(Base.prototype, { reconcile: 'later' });
    @IdempotentProcessor('charges')
    class Unasked extends Base {}
    expect(declarationOf(Unasked).canReconcile).toBe(false);
  });

  it('makes it a processor of that queue for @nestjs/bullmq, which must not start it', () => {
    expect(Reflect.getMetadata('bullmq:processor_metadata', Charges)).toMatchObject({ name: 'charges' });
    expect(workerOptionsOf(Charges)).toMatchObject({ concurrency: 20, autorun: false });
  });

  it('leaves the start to the application where it asked for that', () => {
    @IdempotentProcessor('charges', {}, { autorun: false })
    class ByHand extends WorkerHost {
      async process(): Promise<void> {}
    }
    expect(declarationOf(ByHand).isStarted).toBe(false);
    expect(workerOptionsOf(ByHand)).toMatchObject({ autorun: false });
  });

  it('brings the backoff strategy that knows the ledger’s delays, and keeps other settings', () => {
    const settings = { backoffStrategy: () => 1, repeatStrategy: () => undefined };
    @IdempotentProcessor('charges', {}, { settings })
    class Tuned extends WorkerHost {
      async process(): Promise<void> {}
    }
    expect(workerOptionsOf(Tuned)['settings']).toEqual({
      backoffStrategy,
      repeatStrategy: settings.repeatStrategy,
    });
  });

  it('gives the worker of a queue that pauses a limit that nobody reaches, and has it look again each second', () => {
    @IdempotentProcessor('charges', { dependency: 'gateway', pauseQueue: true })
    class Paused extends WorkerHost {
      async process(): Promise<void> {}
    }
    expect(workerOptionsOf(Paused)).toMatchObject({
      limiter: { max: 1_000_000_000, duration: 1_000 },
      maximumRateLimitDelay: 1_000,
    });
    expect(workerOptionsOf(Charges)).not.toHaveProperty('limiter');
    expect(workerOptionsOf(Charges)).not.toHaveProperty('maximumRateLimitDelay');
  });

  it('leaves the worker of a queue that pauses its own limit', () => {
    const own = { limiter: { max: 5, duration: 60_000 }, maximumRateLimitDelay: 200 };
    @IdempotentProcessor('charges', { dependency: 'gateway', pauseQueue: true }, own)
    class Limited extends WorkerHost {
      async process(): Promise<void> {}
    }
    expect(workerOptionsOf(Limited)).toMatchObject(own);
  });

  it('has Nest inject the host', () => {
    const dependencies = Reflect.getMetadata(PROPERTY_DEPS_METADATA, Charges) as { type: unknown }[];
    expect(dependencies.map(({ type }) => type)).toEqual([ProcessorHost]);
  });

  it('adds no enumerable property to instances', () => {
    expect(Object.keys(new Charges())).toEqual([]);
  });

  it('refuses a class that has no process(), naming both', () => {
    class Idle {}
    const decorate = IdempotentProcessor('charges') as (target: unknown) => void;
    expect(() => decorate(Idle)).toThrow(ConfigurationError);
    expect(() => decorate(Idle)).toThrow(/@IdempotentProcessor\("charges"\) on Idle.*process\(\)/);
  });
});

describe('@IdempotentProcessor: interceptors', () => {
  it('puts its own on a class that has no other', () => {
    expect(interceptorsOf(Charges)).toEqual([IdempotencyInterceptor]);
  });

  it('goes first when @UseInterceptors stands below it', () => {
    @IdempotentProcessor('charges')
    @UseInterceptors(Logging, Timing)
    class Below extends WorkerHost {
      async process(): Promise<void> {}
    }
    expect(interceptorsOf(Below)).toEqual([IdempotencyInterceptor, Logging, Timing]);
  });

  it('goes first when @UseInterceptors stands above it', () => {
    @UseInterceptors(Logging, Timing)
    @IdempotentProcessor('charges')
    class Above extends WorkerHost {
      async process(): Promise<void> {}
    }
    expect(interceptorsOf(Above)).toEqual([IdempotencyInterceptor, Logging, Timing]);
  });

  it('goes first when they stand above and below it', () => {
    @UseInterceptors(Logging)
    @IdempotentProcessor('charges')
    @UseInterceptors(Timing)
    class Around extends WorkerHost {
      async process(): Promise<void> {}
    }
    expect(interceptorsOf(Around)).toEqual([IdempotencyInterceptor, Timing, Logging]);
  });

  it('is there once on each of two classes that share a base, and not on the base', () => {
    abstract class Base extends WorkerHost {
      async process(): Promise<void> {}
    }
    @IdempotentProcessor('one')
    class One extends Base {}
    @IdempotentProcessor('two')
    class Two extends Base {}
    expect(interceptorsOf(One)).toEqual([IdempotencyInterceptor]);
    expect(interceptorsOf(Two)).toEqual([IdempotencyInterceptor]);
    expect(interceptorsOf(Base)).toBeUndefined();
    expect(processOf(One)).not.toBe(processOf(Two));
    expect(Reflect.hasMetadata(PROCESSOR_DECLARATION, Base)).toBe(false);
  });
});

describe('@IdempotentProcessor: inherited interceptors', () => {
  it('keeps those of the base, which itself stays as it was', () => {
    @UseInterceptors(Logging, Timing)
    abstract class Base extends WorkerHost {
      async process(): Promise<void> {}
    }
    @IdempotentProcessor('charges')
    class Derived extends Base {}
    expect(interceptorsOf(Derived)).toEqual([IdempotencyInterceptor, Logging, Timing]);
    expect(interceptorsOf(Base)).toEqual([Logging, Timing]);
  });

  it('is there once on a class whose base is a processor too', () => {
    @IdempotentProcessor('one')
    @UseInterceptors(Logging)
    class Base extends WorkerHost {
      async process(): Promise<void> {}
    }
    @IdempotentProcessor('two')
    class Derived extends Base {
      override async process(): Promise<void> {}
    }
    expect(interceptorsOf(Derived)).toEqual([IdempotencyInterceptor, Logging]);
    expect(interceptorsOf(Base)).toEqual([IdempotencyInterceptor, Logging]);
  });

  it('takes those of the class instead of those of the base where it has some of its own', () => {
    @UseInterceptors(Logging)
    abstract class Base extends WorkerHost {
      async process(): Promise<void> {}
    }
    @IdempotentProcessor('charges')
    @UseInterceptors(Timing)
    class Derived extends Base {}
    expect(interceptorsOf(Derived)).toContain(Timing);
    expect((interceptorsOf(Derived) as unknown[])[0]).toBe(IdempotencyInterceptor);
  });
});

describe('@IdempotentProcessor: the wrapped process()', () => {
  it.each([
    [
      'none',
      class extends WorkerHost {
        async process(): Promise<void> {}
      },
    ],
    [
      'the job',
      class extends WorkerHost {
        async process(_job: Job): Promise<void> {}
      },
    ],
    [
      'job and token',
      class extends WorkerHost {
        async process(_job: Job, _token?: string): Promise<void> {}
      },
    ],
  ])(
    'declares two parameters, so that BullMQ makes no signal that nobody uses, where the original declares %s',
    (_what, original) => {
      IdempotentProcessor('charges')(original);
      expect(processOf(original)).toHaveLength(2);
    },
  );

  it('carries the metadata of the method, where Nest looks for its guards and interceptors', () => {
    @IdempotentProcessor('charges')
    class Guarded extends WorkerHost {
      @UseGuards(Gate)
      @UseInterceptors(Timing)
      @SetMetadata('roles', ['cashier'])
      async process(): Promise<void> {}
    }
    const process = processOf(Guarded);
    expect(Reflect.getMetadata(GUARDS_METADATA, process)).toEqual([Gate]);
    expect(Reflect.getMetadata(INTERCEPTORS_METADATA, process)).toEqual([Timing]);
    expect(Reflect.getMetadata('roles', process)).toEqual(['cashier']);
  });

  it('explains itself when it is called on an instance that Nest did not create', () => {
    const call = (): unknown => new Charges().process(job);
    expect(call).toThrow(UsageError);
    expect(call).toThrow(
      'Charges.process() was called on an instance that Nest did not create, so it has no ledger. Provide the class itself ({ provide, useClass }), not an instance of your own.',
    );
  });

  it('hands the host the instance, the original method and all that BullMQ gave it, and returns its answer', async () => {
    const calls: unknown[][] = [];
    const host = {
      handle: async (...args: unknown[]) => {
        calls.push(args);
        return 'handled';
      },
    };
    const instance = new Charges();
    const [{ key }] = Reflect.getMetadata(PROPERTY_DEPS_METADATA, Charges) as [{ key: symbol }];
    Object.assign(instance, { [key]: host });
    const process = processOf(Charges).bind(instance) as (...args: unknown[]) => Promise<unknown>;
    expect(await process(job, 'token-1')).toBe('handled');
    const [[handled, original, ...rest]] = calls as [[unknown, Function, ...unknown[]]];
    expect(handled).toBe(instance);
    expect(rest).toEqual([job, 'token-1']);
    expect(await original.call(instance, job)).toBe('charged');
  });
});
