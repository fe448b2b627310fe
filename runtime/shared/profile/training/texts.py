"""Texts: cleaned, cut, compared, wrapped, encoded, hashed, written as Markdown and HTML."""

import base64
import difflib
import hashlib
import hmac
import html
import struct
import textwrap
import unicodedata
import urllib.parse
from html.parser import HTMLParser
from string import Template
from xml.etree import ElementTree

SOURCE = """The quick brown fox jumps over the lazy dog, while Zoë's naïve café owner counts 1,234.50 € or 7 %!
Über allen Gipfeln ist Ruh. ¿Dónde está la biblioteca? 東京は大きい。 Tabs\tand  double  spaces stay   here.
"""


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.text = [], []

    def handle_starttag(self, tag, attrs):
        if tag == "a":
            self.found.append(dict(attrs).get("href"))

    def handle_data(self, data):
        self.text.append(data.strip())


def slug(text):
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return "-".join("".join(c if c.isalnum() else " " for c in plain).split())


def caesar(text, by):
    return "".join(chr((ord(c) - 97 + by) % 26 + 97) if "a" <= c <= "z" else c.swapcase() for c in text)


def squeezed(text):
    out, last, count = [], "", 0
    for letter in text + "\0":
        if letter == last:
            count += 1
            continue
        if last:
            out.append(f"{last}{count}" if count > 1 else last)
        last, count = letter, 1
    return "".join(out)


def is_palindrome(text):
    letters = [c for c in text.casefold() if c.isalnum()]
    return letters == letters[::-1]


def roman(number):
    out = ""
    values = (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1)
    for value, sign in zip(
        values, ["M", "CM", "D", "CD", "C", "XC", "L", "XL", "X", "IX", "V", "IV", "I"], strict=True
    ):
        count, number = divmod(number, value)
        out += sign * count
    return out


def main():
    pages = []
    for n in range(60):
        lines = [" ".join(line.split()) for line in SOURCE.splitlines()]
        title = f"{n}. {lines[n % 2][: 20 + n % 15].strip()}"
        words = [w.strip(".,!?") for line in lines for w in line.split(" ")]
        short = " ".join(w for w in words if len(w) > n % 5)
        body = textwrap.fill(short, 60, initial_indent="  ")
        page = Template("# $title\n\n$body\n").safe_substitute(title=title, body=body)
        page += "\n".join(f"| {w:<14} | {w.count('e'):>3} | {w.upper().center(14, '*')} |" for w in words[:20])
        link = urllib.parse.urlencode({"q": title, "n": n, "page": [1, 2]}, doseq=True)
        page += f'<p class="x">{html.escape(title)} <a href="https://example.org/{slug(title)}?{link}">more</a></p>'
        parser = Links()
        parser.feed(page)
        parts = urllib.parse.urlsplit(parser.found[0])
        query = urllib.parse.parse_qs(parts.query)
        changed = caesar(page.lower(), n), squeezed(page), roman(n + 1900), is_palindrome(title)
        pages.append((title, page, parts.path, query["q"][0], *changed))
    old, new = pages[3][1].splitlines(), pages[8][1].splitlines()
    changes = list(difflib.unified_diff(old, new, lineterm=""))
    ratio = difflib.SequenceMatcher(None, pages[0][0], pages[5][0]).ratio()
    data = "".join(p[1] for p in pages).encode()
    packed = b"".join(struct.pack("<IHd", len(p[1]), n, n / 3) for n, p in enumerate(pages))
    marks = [hashlib.sha256(p[1].encode()).hexdigest()[:12] for p in pages]
    marks.append(hmac.new(b"key", data, "sha256").hexdigest())
    turned = base64.b64decode(base64.b64encode(data)).decode("utf-8").encode("utf-16").hex()
    root = ElementTree.Element("pages")
    for title, *_ in pages:
        ElementTree.SubElement(root, "page", name=title).text = title.replace("e", "&")
    read = [e.get("name") for e in ElementTree.fromstring(ElementTree.tostring(root)).iter("page")]
    table = str.maketrans({"a": "4", "e": "3", "o": None})
    swapped = [p[1].translate(table).partition("\n")[2].rpartition("|")[0].splitlines(keepends=True) for p in pages]
    joined = "%s, %05.1f %x %r" % (read[0], 3.14159, 255, read[1])  # noqa: UP031
    found = [p[1].find("café") + p[1].rfind("|") + p[1].startswith("#") + p[1].endswith("</p>") for p in pages]
    sums = list(struct.iter_unpack("<IHd", packed))
    return len(changes), ratio, marks, len(turned), len(swapped), joined, sum(found), len(sums), ascii(read[2])


for _ in range(8):
    main()
