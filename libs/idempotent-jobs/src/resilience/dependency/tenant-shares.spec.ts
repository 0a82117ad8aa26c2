import { describe, expect, it } from 'vitest';
import { TenantShares } from './tenant-shares.js';

const calls = (...told: [tenantId: string | undefined, outcome: 'fails' | 'answers'][]): TenantShares => {
  const shares = new TenantShares(1000, () => 0);
  for (const [tenantId, outcome] of told) shares.note(tenantId, outcome === 'fails');
  return shares;
};

describe('whose calls of a circuit fail', () => {
  it.each([
    ['nobody’s', calls(), false],
    ['one tenant’s, alone', calls(['acme', 'fails']), false],
    ['one tenant’s, which was answered too', calls(['acme', 'answers'], ['acme', 'fails']), false],
    ['one tenant’s, while another’s are answered', calls(['globex', 'answers'], ['acme', 'fails']), true],
    [
      'two tenants’, while another’s are answered',
      calls(['globex', 'answers'], ['acme', 'fails'], ['hooli', 'fails']),
      false,
    ],
    ['those of no tenant', calls([undefined, 'fails'], ['globex', 'answers']), false],
  ])('%s', (_whose, shares, isOneTenants) => {
    expect(shares.isOneTenantsFault).toBe(isOneTenants);
  });

  it('is forgotten when the window is over, and when the circuit is closed again', () => {
    let now = 0;
    const shares = new TenantShares(1000, () => now);
    shares.note('globex', false);
    now = 1001;
    shares.note('acme', true);
    expect(shares.isOneTenantsFault).toBe(false);
    shares.note('globex', false);
    expect(shares.isOneTenantsFault).toBe(true);
    shares.forget();
    expect(shares.isOneTenantsFault).toBe(false);
  });
});
