"""Lines of text are taken apart: patterns, counts, times, and a summary."""

import re
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice
from operator import attrgetter, itemgetter
from statistics import mean, median

Event = namedtuple("Event", "at level module text")
LINE = re.compile(
    r"^(?P<at>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)\s+(?P<level>[A-Z]+)\s+\[(?P<module>[\w.]+)\]:? (?P<text>.*)$"
)
PAIR = re.compile(r"(\w+)=(?:\"([^\"]*)\"|(\S+))")
MAIL = re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b", re.IGNORECASE)
SECRET = re.compile(r"(?i)(token|password)(\s*[:=]\s*)\S+")
LEVELS = ("DEBUG", "INFO", "INFO", "INFO", "WARNING", "ERROR")


def lines(count):
    start = datetime(2026, 3, 1, 8, tzinfo=UTC)
    for n in range(count):
        at = start + timedelta(seconds=n * 37)
        text = f'user=u{n % 23} took={n * 13 % 997}ms path="/a b/{n % 11}" mail=x{n % 5}@Example.org token: {n:x}'
        yield f"{at:%Y-%m-%dT%H:%M:%SZ} {LEVELS[n % 6]} [app.m{n % 9}] {text}"
        if n % 50 == 0:
            yield "    Traceback: something that does not match"


def events(source):
    for line in source:
        if match := LINE.match(line):
            at = datetime.fromisoformat(match["at"])
            yield Event(at, match["level"], match["module"], SECRET.sub(r"\1\2***", match["text"]))


def main():
    found = list(events(lines(2500)))
    levels = Counter(map(attrgetter("level"), found))
    took, users, mails = defaultdict(list), set(), OrderedDict()
    last = deque(maxlen=10)
    for event in found:
        fields = {name: quoted or plain for name, quoted, plain in PAIR.findall(event.text)}
        took[event.module].append(int(fields["took"].removesuffix("ms")))
        users.add(fields["user"])
        for mail in MAIL.findall(event.text):
            mails[mail.lower()] = mails.get(mail.lower(), 0) + 1
        if event.level in {"ERROR", "WARNING"}:
            last.append(event._replace(text=event.text[:30].strip()))
    table = [(m, len(v), mean(v), median(v), max(v)) for m, v in took.items()]
    table.sort(key=itemgetter(2), reverse=True)
    by_hour = groupby(found, key=lambda e: e.at.replace(minute=0, second=0))
    hours = {hour: sum(1 for _ in group) for hour, group in by_hour}
    words = re.split(r"[\s=\"/:.\[\]]+", " ".join(e.text for e in islice(found, 800)))
    frequent = Counter(w.casefold() for w in words if w and not w.isdigit()).most_common(20)
    rows = "\n".join("{:<10}{:>6}{:>10.2f}{:>10.1f}{:>8}".format(*row) for row in table)
    return rows, levels, hours, frequent, sorted(users), mails, list(last)


for _ in range(6):
    main()
