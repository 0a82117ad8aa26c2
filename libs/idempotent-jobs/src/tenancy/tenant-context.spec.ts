import { describe, expect, it } from 'vitest';
import {
  currentOperation,
  type CurrentOperation,
  enterOperation,
} from '../worker/attempt/current-operation.js';
import {
  InvalidIdentityError,
  TenantMismatchError,
  TenantMissingError,
  UsageError,
} from '../operation/errors.js';
import { TenantContext } from './tenant-context.js';

const tick = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const operation = { operationKey: 'charge:1' } as CurrentOperation;

describe('TenantContext.run', () => {
  it('knows no tenant outside of any frame', () => {
    expect(new TenantContext().current).toBeUndefined();
  });

  it('knows the tenant inside, across awaits, and no longer after', async () => {
    const tenants = new TenantContext();
    const seen = await tenants.run('acme', async () => {
      const before = tenants.current;
      await tick();
      return [before, tenants.current];
    });
    expect(seen).toEqual(['acme', 'acme']);
    expect(tenants.current).toBeUndefined();
  });

  it('gives back what the function returns, and lets through what it throws', () => {
    const tenants = new TenantContext();
    expect(tenants.run('acme', () => 42)).toBe(42);
    expect(() =>
      tenants.run('acme', () => {
        throw new RangeError('inside');
      }),
    ).toThrow(RangeError);
    expect(tenants.current).toBeUndefined();
  });

  it('opens a frame inside another one, and returns to the outer one', () => {
    const tenants = new TenantContext();
    tenants.run('acme', () => {
      expect(tenants.run('globex', () => tenants.current)).toBe('globex');
      expect(tenants.current).toBe('acme');
    });
  });

  it('keeps frames that are open at the same time apart', async () => {
    const tenants = new TenantContext();
    const seen = await Promise.all(
      ['a', 'b', 'c'].map((tenantId) =>
        tenants.run(tenantId, async () => {
          await tick();
          return tenants.current;
        }),
      ),
    );
    expect(seen).toEqual(['a', 'b', 'c']);
  });

  it.each([[''], [' acme'], ['x'.repeat(256)], ['a\nb'], [undefined], [7]])(
    'opens no frame for a tenant id that is wrong: %j',
    (tenantId) => {
      const calls: string[] = [];
      expect(() => new TenantContext().run(tenantId as string, () => calls.push('called'))).toThrow(
        InvalidIdentityError,
      );
      expect(calls).toEqual([]);
    },
  );
});

describe('TenantContext of two applications in one process', () => {
  it('does not see the other one’s frame', () => {
    const [shop, bank] = [new TenantContext(), new TenantContext()];
    shop.run('acme', () => {
      expect(bank.current).toBeUndefined();
      expect(() => bank.require()).toThrow(TenantMissingError);
      expect(bank.assert('globex')).toBe('globex');
    });
  });

  it('is hidden, not merged, by the other one’s frame inside its own', () => {
    const [shop, bank] = [new TenantContext(), new TenantContext()];
    shop.run('acme', () =>
      bank.run('globex', () => {
        expect(bank.current).toBe('globex');
        expect(shop.current).toBeUndefined();
      }),
    );
  });
});

describe('TenantContext.runJob', () => {
  it('inherits no operation from the frame that surrounds it', () => {
    const tenants = new TenantContext();
    tenants.runJob('acme', () => {
      enterOperation(operation);
      expect(currentOperation()).toBe(operation);
      tenants.runJob('globex', () => {
        expect(tenants.current).toBe('globex');
        expect(() => currentOperation()).toThrow(UsageError);
      });
      expect(currentOperation()).toBe(operation);
    });
  });

  it('gives each job a frame of its own: entering an operation in one shows in no other', async () => {
    const tenants = new TenantContext();
    const job = (key: string): Promise<string> =>
      tenants.runJob('acme', async () => {
        enterOperation({ operationKey: key } as CurrentOperation);
        await tick();
        return currentOperation().operationKey;
      });
    expect(await Promise.all([job('a'), job('b')])).toEqual(['a', 'b']);
  });

  it('keeps the operation in a frame that the handler opens for another tenant', () => {
    const tenants = new TenantContext();
    tenants.runJob('acme', () => {
      enterOperation(operation);
      expect(tenants.run('globex', () => currentOperation())).toBe(operation);
    });
  });
});

describe('TenantContext.require', () => {
  it('gives the tenant of the frame', () => {
    const tenants = new TenantContext();
    expect(tenants.run('acme', () => tenants.require())).toBe('acme');
  });

  it('says outside of any frame what can be done about it', () => {
    expect(() => new TenantContext().require()).toThrow(TenantMissingError);
    expect(() => new TenantContext().require()).toThrow(/TenantContext\.run.*middleware.*pass tenantId/);
  });
});

describe('TenantContext.assert', () => {
  it.each([
    { frame: undefined, given: 'acme', tenant: 'acme' },
    { frame: 'acme', given: undefined, tenant: 'acme' },
    { frame: 'acme', given: 'acme', tenant: 'acme' },
  ])('in frame $frame, given $given: acts for $tenant', ({ frame, given, tenant }) => {
    const tenants = new TenantContext();
    const assert = (): string => tenants.assert(given);
    expect(frame === undefined ? assert() : tenants.run(frame, assert)).toBe(tenant);
  });

  it('refuses another tenant than that of the frame, naming both', () => {
    const tenants = new TenantContext();
    tenants.run('acme', () => {
      expect(() => tenants.assert('globex')).toThrow(TenantMismatchError);
      expect(() => tenants.assert('globex')).toThrow(/"globex".*"acme"/);
    });
  });

  it('refuses to guess when neither is known', () => {
    expect(() => new TenantContext().assert(undefined)).toThrow(TenantMissingError);
  });

  it.each(['', 'a\0b', 'x'.repeat(256)])('refuses a tenant id that is wrong (%j)', (tenantId) => {
    expect(() => new TenantContext().assert(tenantId)).toThrow(InvalidIdentityError);
  });
});
