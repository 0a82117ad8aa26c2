import {
  Body,
  Controller,
  Get,
  HttpStatus,
  NotFoundException,
  Param,
  Post,
  Res,
  UseGuards,
} from '@nestjs/common';
import type { Response } from 'express';
import { TenantGuard } from '../tenancy/tenant.guard.js';
import { OrderKey } from './order-key.decorator.js';
import { type OrderProgress, OrderProgressService } from './order-progress.service.js';
import { type OrderView, OrdersService } from './orders.service.js';
import { PlaceOrderDto } from './place-order.dto.js';

@Controller('orders')
@UseGuards(TenantGuard)
export class OrdersController {
  constructor(
    private readonly orders: OrdersService,
    private readonly progress: OrderProgressService,
  ) {}

  /** 201 for a new order; 200 with the same body when the order was already placed with this key. */
  @Post()
  async place(
    @OrderKey() id: string,
    @Body() request: PlaceOrderDto,
    @Res({ passthrough: true }) response: Response,
  ): Promise<OrderView> {
    const { order, isNew } = await this.orders.place(id, request);
    response.status(isNew ? HttpStatus.CREATED : HttpStatus.OK);
    return order;
  }

  @Get(':id')
  async find(@Param('id') id: string): Promise<OrderView & { operations: OrderProgress }> {
    const order = await this.orders.find(id);
    if (order === undefined) throw new NotFoundException(`There is no order "${id}"`);
    return { ...order, operations: await this.progress.of(id) };
  }
}
