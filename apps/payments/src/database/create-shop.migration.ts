import type { MigrationInterface, QueryRunner } from 'typeorm';

/** The shop's own tables. The tenant comes first in every key, so that no row can be found without it. */
export class CreateShop1767225600001 implements MigrationInterface {
  readonly name = 'CreateShop1767225600001';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE TABLE products (
        tenant_id        text    NOT NULL,
        sku              text    NOT NULL,
        unit_price_cents integer NOT NULL CHECK (unit_price_cents > 0),
        currency         text    NOT NULL,
        available        integer NOT NULL CHECK (available >= 0),
        PRIMARY KEY (tenant_id, sku)
      )`);
    await runner.query(`
      CREATE TABLE orders (
        tenant_id      text        NOT NULL,
        -- The Idempotency-Key of the request that placed it.
        id             text        NOT NULL,
        sku            text        NOT NULL,
        quantity       integer     NOT NULL CHECK (quantity > 0),
        customer_email text        NOT NULL,
        amount_cents   integer     NOT NULL CHECK (amount_cents > 0),
        currency       text        NOT NULL,
        created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (tenant_id, id)
      )`);
    await runner.query(`
      CREATE TABLE reservations (
        tenant_id  text        NOT NULL,
        order_id   text        NOT NULL,
        sku        text        NOT NULL,
        quantity   integer     NOT NULL CHECK (quantity > 0),
        status     text        NOT NULL DEFAULT 'reserved' CHECK (status IN ('reserved', 'shipped', 'released')),
        shipped_at timestamptz CHECK ((shipped_at IS NOT NULL) = (status = 'shipped')),
        PRIMARY KEY (tenant_id, order_id),
        FOREIGN KEY (tenant_id, order_id) REFERENCES orders (tenant_id, id)
      )`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('DROP TABLE reservations, orders, products');
  }
}
