def headings(html: str) -> str:
    """The headings of a page, as a table.

    Args:
        html: the page.
    """
    from bs4 import BeautifulSoup
    from tabulate import tabulate

    found = BeautifulSoup(html, "html.parser").find_all(["h1", "h2", "h3"])
    return tabulate([(tag.name, tag.get_text(strip=True)) for tag in found], headers=["level", "text"])
