import { ConflictException, Injectable, Logger, UnprocessableEntityException } from '@nestjs/common';
import { type IdempotentQueue, InjectIdempotentQueue, TenantContext } from 'nestjs-idempotent-jobs';
import { DataSource, type EntityManager } from 'typeorm';
import { INVENTORY, type InventoryJobs, reserveKeyOf } from '../inventory/inventory.jobs.js';
import { Product } from '../inventory/product.entity.js';
import { Order } from './order.entity.js';
import type { PlaceOrderDto } from './place-order.dto.js';

/** An order as its customer sees it. */
export type OrderView = Omit<Order, 'tenantId'>;

/** Takes orders. Every query has the tenant: an order of another tenant is not found. */
@Injectable()
export class OrdersService {
  private readonly logger = new Logger('Orders');

  constructor(
    private readonly dataSource: DataSource,
    private readonly tenants: TenantContext,
    @InjectIdempotentQueue(INVENTORY) private readonly inventory: IdempotentQueue<InventoryJobs>,
  ) {}

  /**
   * Stores an order and enqueues the reservation of its goods in one transaction: there is never one without the other.
   * The same id again returns the existing order.
   *
   * @throws ConflictException if the id belongs to another order
   * @throws UnprocessableEntityException if the tenant does not sell this
   */
  async place(id: string, request: PlaceOrderDto): Promise<{ order: OrderView; isNew: boolean }> {
    const tenantId = this.tenants.require();
    const placed = await this.dataSource.transaction(async (manager) => {
      const isNew = await this.store(manager, tenantId, id, request);
      if (isNew) {
        const { sku, quantity } = request;
        const operationKey = reserveKeyOf(id);
        await this.inventory.enqueue(
          'reserve',
          { orderId: id, sku, quantity },
          { operationKey, transaction: manager },
        );
      }
      return { order: await manager.findOneByOrFail(Order, { tenantId, id }), isNew };
    });
    if (!placed.isNew && !isSameRequest(placed.order, request)) {
      throw new ConflictException(
        `The key "${id}" belongs to another order; use a new one for a new order, and the same body for the same one`,
      );
    }
    const { sku, quantity } = placed.order;
    this.logger.log(
      `${placed.isNew ? 'placed' : 'repeated'} order tenant=${tenantId} id=${id} sku=${sku} quantity=${quantity}`,
    );
    return { order: viewOf(placed.order), isNew: placed.isNew };
  }

  /** Finds an order of the current tenant. */
  async find(id: string): Promise<OrderView | undefined> {
    const order = await this.dataSource.manager.findOneBy(Order, { tenantId: this.tenants.require(), id });
    return order === null ? undefined : viewOf(order);
  }

  /** Returns false if the id is taken. Of two requests with one id, the second waits on the primary key for the first. */
  private async store(
    manager: EntityManager,
    tenantId: string,
    id: string,
    { sku, quantity, customerEmail }: PlaceOrderDto,
  ): Promise<boolean> {
    const product = await manager.findOneBy(Product, { tenantId, sku });
    if (product === null) throw new UnprocessableEntityException(`There is no product "${sku}"`);
    const amountCents = product.unitPriceCents * quantity;
    const { currency } = product;
    const inserted = await manager
      .createQueryBuilder()
      .insert()
      .into(Order)
      .values({ tenantId, id, sku, quantity, customerEmail, amountCents, currency })
      .orIgnore()
      .returning('id')
      .execute();
    return (inserted.raw as unknown[]).length > 0;
  }
}

function isSameRequest(order: Order, { sku, quantity, customerEmail }: PlaceOrderDto): boolean {
  return order.sku === sku && order.quantity === quantity && order.customerEmail === customerEmail;
}

function viewOf({ id, sku, quantity, customerEmail, amountCents, currency, createdAt }: Order): OrderView {
  return { id, sku, quantity, customerEmail, amountCents, currency, createdAt };
}
