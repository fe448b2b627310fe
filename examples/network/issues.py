import os

import httpx


def issues(repository: str, limit: int = 10) -> str:
    """Titles of a repository's open issues.

    Args:
        repository: owner and name, as "ada/engine".
        limit: how many titles.
    """
    headers = {"Authorization": f"Bearer {os.environ.get('GITHUB_TOKEN')}"}
    with httpx.Client(base_url="https://api.github.example", headers=headers) as client:
        answer = client.get(f"/repos/{repository}/issues", params={"state": "open", "per_page": limit})
        answer.raise_for_status()
        return ", ".join(f"#{issue['number']} {issue['title']}" for issue in answer.json())
