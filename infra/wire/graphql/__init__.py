"""Executing W&B's GraphQL operations: schema, arguments, cost, filters, pages of results."""
