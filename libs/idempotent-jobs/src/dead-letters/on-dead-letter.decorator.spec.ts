import { describe, expect, it } from 'vitest';
import { ConfigurationError } from '../operation/errors.js';
import { letterHandlersOf, OnDeadLetter } from './on-dead-letter.decorator.js';

class Alerts {
  @OnDeadLetter()
  page(): void {}

  @OnDeadLetter('charges')
  @OnDeadLetter('receipts')
  mail(): void {}
}

class MoreAlerts extends Alerts {
  @OnDeadLetter('orders')
  call(): void {}
}

const ALERTS = [
  { method: 'page', queue: undefined },
  { method: 'mail', queue: 'receipts' },
  { method: 'mail', queue: 'charges' },
];

describe('@OnDeadLetter', () => {
  it('notes methods and queues', () => {
    expect(letterHandlersOf(Alerts.prototype)).toEqual(ALERTS);
  });

  it('is inherited, without touching the base class', () => {
    expect(letterHandlersOf(MoreAlerts.prototype)).toEqual([...ALERTS, { method: 'call', queue: 'orders' }]);
    expect(letterHandlersOf(Alerts.prototype)).toEqual(ALERTS);
  });

  it('refuses static methods', () => {
    expect(() => {
      class Static {
        @OnDeadLetter()
        static page(): void {}
      }
      return Static;
    }).toThrow(ConfigurationError);
  });

  it('refuses what is no method', () => {
    expect(() => {
      class Getter {
        // @ts-expect-error a getter of something that is no handler
        @OnDeadLetter()
        get page(): number {
          return 1;
        }
      }
      return Getter;
    }).toThrow('only methods');
  });
});
