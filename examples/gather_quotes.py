"""Ask several suppliers at the same time, and take the best offer that comes in time."""

import asyncio


async def ask(supplier: dict, quantity: int) -> dict:
    """One supplier's offer. A guest has no network: the answer, and how long it takes, are in ``supplier``."""
    await asyncio.sleep(supplier.get("answers_after_ms", 0) / 1000)
    if quantity < supplier.get("minimum", 1):
        raise ValueError(f"sells {supplier['minimum']} or more")
    return {"supplier": supplier["name"], "total_cents": supplier["cents"] * quantity}


async def gather_quotes(suppliers: list[dict], quantity: int, patience_ms: int = 500) -> dict:
    """Collect offers concurrently: it takes as long as the slowest answer, not as long as all together.

    Args:
        suppliers: Each with name and cents (the price of a piece), and perhaps minimum and answers_after_ms.
        quantity: Pieces wanted.
        patience_ms: Offers later than this do not count.

    Returns:
        The best offer, all offers by price, and why the others made none.
    """
    print(f"asking {len(suppliers)} suppliers")
    asked = [asyncio.wait_for(ask(supplier, quantity), patience_ms / 1000) for supplier in suppliers]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    offers, refusals = [], {}
    for supplier, answer in zip(suppliers, answers, strict=True):
        if isinstance(answer, TimeoutError):
            refusals[supplier["name"]] = f"no answer within {patience_ms} ms"
        elif isinstance(answer, BaseException):
            refusals[supplier["name"]] = str(answer)
        else:
            offers.append(answer)
    offers.sort(key=lambda offer: offer["total_cents"])
    return {"best": offers[0] if offers else None, "offers": offers, "refusals": refusals}
