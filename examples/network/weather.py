import requests


def weather(city: str) -> str:
    """The weather in a city, now.

    Args:
        city: name of the city.
    """
    answer = requests.get("https://api.weather.example/v1/current", params={"city": city}, timeout=10)
    answer.raise_for_status()
    now = answer.json()
    return f"{now['city']}: {now['celsius']} degrees, {now['sky']}"
