"""What a web server's access log says, in a few numbers."""

import re
import sys
from collections import Counter, defaultdict
from statistics import median

LINE = re.compile(
    r'(?P<host>\S+) \S+ \S+ \[(?P<when>[^\]]+)\] "(?P<method>[A-Z]+) (?P<path>\S+)[^"]*" '
    r"(?P<status>\d{3}) (?P<size>\d+|-)(?: (?P<ms>\d+)ms)?"
)


def log_analyser(lines: list[str], top: int = 3) -> dict:
    """Summarise an access log in the common format, with an optional duration such as ``12ms`` at the end.

    Lines that do not look like it are counted, and the first of them is printed to stderr.

    Args:
        lines: The log.
        top: How many paths and hosts to list.

    Returns:
        Requests, statuses, error rate, busiest paths and hosts, and the median duration of each path.
    """
    paths: Counter[str] = Counter()
    hosts: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    durations: defaultdict[str, list[int]] = defaultdict(list)
    unknown = []
    for number, line in enumerate(lines, 1):
        match = LINE.match(line)
        if match is None:
            if line.strip():
                unknown.append(number)
            continue
        path = match["path"].partition("?")[0]
        paths[path] += 1
        hosts[match["host"]] += 1
        statuses[f"{match['status'][0]}xx"] += 1
        if match["ms"]:
            durations[path].append(int(match["ms"]))
    if unknown:
        print(f"line {unknown[0]} is no access log line", file=sys.stderr)
    requests = paths.total()
    return {
        "requests": requests,
        "unknown_lines": len(unknown),
        "statuses": dict(sorted(statuses.items())),
        "error_rate": round(statuses["5xx"] / requests, 3) if requests else 0.0,
        "top_paths": dict(paths.most_common(top)),
        "top_hosts": dict(hosts.most_common(top)),
        "median_ms": {path: median(values) for path, values in sorted(durations.items())},
    }
