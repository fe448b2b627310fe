import json
import urllib.request


def convert(amount: float, pair: str) -> float:
    """An amount in another currency.

    Args:
        amount: the amount.
        pair: currencies from and to, as "EUR-USD".
    """
    with urllib.request.urlopen(f"https://rates.example/latest/{pair}", timeout=10) as answer:
        return round(amount * json.load(answer)["rate"], 2)
