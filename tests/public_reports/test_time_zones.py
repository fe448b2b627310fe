"""Time zones: `zoneinfo.reset_tzpath`, `TZPATH` and `TZ` are ignored.

The kind: every way in which a program is told of zones: the variables `TZ` and `PYTHONTZPATH`, `time.tzset`,
`zoneinfo.reset_tzpath`; and all that depends on the local zone.
"""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
import zoneinfo
from typing import Any

import pytest

from wasm_sandbox import Tool, run_tool

ZONES = [
    "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Sao_Paulo", "Europe/Dublin",
    "Pacific/Apia", "Etc/GMT+5", "UTC", ":Europe/Paris",
    "EST5EDT,M3.2.0,M11.1.0", "<+0330>-3:30", "CET-1CEST,M3.5.0,M10.5.0/3", "AEST-10AEDT,M10.1.0,M4.1.0/3",
    "XXX3YYY,J60/1,J300", "XXX3YYY,59,299/25", "Nowhere/Land", "ABC", "",
]  # fmt: skip
MOMENTS = [
    0,
    1_700_000_000,
    1_720_000_000,
    951_782_400,
    1_711_846_800,
    1_711_850_400,
    1_729_990_800,
    2_500_000_000,
    31_536_000,
]
SHOWN = (
    "import time, datetime\n"
    "def shown(moments):\n"
    "    made = []\n"
    "    for moment in moments:\n"
    "        local = time.localtime(moment)\n"
    "        then = datetime.datetime.fromtimestamp(moment)\n"
    "        made.append([tuple(local), local.tm_zone, local.tm_gmtoff, time.mktime(local), time.ctime(moment),\n"
    "            time.strftime('%Z %z %c', local), str(then), then.timestamp(), str(then.astimezone()),\n"
    "            then.astimezone().tzname()])\n"
    "    zone = [time.timezone, time.altzone, time.daylight, list(time.tzname)]\n"
    "    return [list(map(str, one)) for one in made] + [zone]\n"
)


def in_guest(source: str, environ: dict[str, str] | None = None, **options: Any) -> Any:
    result = run_tool(Tool.from_source(source), env=environ, **options)
    assert result.error is None, result.error
    return result.func_return


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="zones of the GNU C library")
@pytest.mark.parametrize("zone", ZONES)
def test_the_variable_sets_the_local_zone(zone: str) -> None:
    if not os.path.exists("/usr/share/zoneinfo/Europe/Berlin"):
        pytest.skip("the host has no zones")
    code = f"{SHOWN}\nprint(repr(shown({MOMENTS})))"
    native = subprocess.run([sys.executable, "-c", code], env={"TZ": zone}, capture_output=True, text=True, check=True)
    found = in_guest(f"{SHOWN}\ndef f():\n    return shown({MOMENTS})\n", {"TZ": zone})
    assert found == eval(native.stdout)


def test_the_zone_is_utc_without_the_variable_and_in_the_next_run() -> None:
    source = "import time\ndef f():\n    return time.tzname, time.localtime(0).tm_hour\n"
    assert in_guest(source, {"TZ": "Asia/Tokyo"}) == (("JST", "JST"), 9)
    assert in_guest(source) == (("UTC", "UTC"), 0)


def test_tzset_heeds_what_the_tool_sets() -> None:
    source = (
        "import os, time, datetime\ndef f():\n    made = []\n"
        "    for zone in ('Asia/Tokyo', 'America/New_York', 'UTC'):\n"
        "        os.environ['TZ'] = zone\n        time.tzset()\n"
        "        made.append((time.tzname, time.timezone, str(datetime.datetime.fromtimestamp(0))))\n"
        "    return made\n"
    )
    assert in_guest(source) == [
        (("JST", "JST"), -32400, "1970-01-01 09:00:00"),
        (("EST", "EDT"), 18000, "1969-12-31 19:00:00"),
        (("UTC", "UTC"), 0, "1970-01-01 00:00:00"),
    ]


def zone_data(key: str) -> bytes:
    """A zone in the format of its files, from the host's own or its package."""
    for root in zoneinfo.TZPATH:
        path = os.path.join(root, key)
        if os.path.isfile(path):
            with open(path, "rb") as file:
                return file.read()
    pytest.skip("the host has no files of zones")


LOOK = "zoneinfo.ZoneInfo('Moon/Base').utcoffset(datetime.datetime(2024, 1, 1)).total_seconds()"


@pytest.mark.parametrize("way", ["reset_tzpath", "PYTHONTZPATH", "PYTHONTZPATH, set by the tool"])
def test_zones_of_a_directory_are_found(way: str) -> None:
    files = {"/zones/Moon/Base": zone_data("Asia/Tokyo"), "/zones/Europe/Berlin": zone_data("Asia/Tokyo")}
    setup = {
        "reset_tzpath": "zoneinfo.reset_tzpath(to=['/zones'])",
        "PYTHONTZPATH": "pass",
        "PYTHONTZPATH, set by the tool": "os.environ['PYTHONTZPATH'] = '/zones'; zoneinfo.reset_tzpath()",
    }[way]
    source = (
        f"import datetime, os, zoneinfo\ndef f():\n    {setup}\n    return (zoneinfo.TZPATH, {LOOK}, "
        "'Moon/Base' in zoneinfo.available_timezones(), 'Asia/Tokyo' in zoneinfo.available_timezones(),\n"
        "        zoneinfo.ZoneInfo.no_cache('Europe/Berlin').utcoffset(datetime.datetime(2024, 1, 1))\n"
        "            .total_seconds())\n"
    )
    environ = {"PYTHONTZPATH": "/zones"} if way == "PYTHONTZPATH" else {}
    assert in_guest(source, environ, files=files) == (("/zones",), 32400.0, True, True, 32400.0)


def test_a_path_that_is_relative_is_refused_as_natively() -> None:
    source = (
        "import zoneinfo\ndef f():\n    try: zoneinfo.reset_tzpath(to=['zones'])\n"
        "    except ValueError as error: return str(error)[:20]\n"
    )
    assert in_guest(source) == "Paths should be abso"


def test_all_zones_of_the_image_are_local_zones_too() -> None:
    source = (
        "import datetime, os, time, zoneinfo\ndef f():\n    wrong = []\n"
        "    for key in sorted(zoneinfo.available_timezones()):\n"
        "        os.environ['TZ'] = key\n        time.tzset()\n        zone = zoneinfo.ZoneInfo(key)\n"
        "        for moment in range(-1_500_000_000, 3_000_000_000, 123_456_789):\n"
        "            then = datetime.datetime.fromtimestamp(moment, zone)\n            local = time.localtime(moment)\n"
        "            if (then.utcoffset().total_seconds(), then.tzname()) != (local.tm_gmtoff, local.tm_zone):\n"
        "                wrong.append((key, moment, str(then), local.tm_gmtoff, local.tm_zone))\n    return wrong[:5]\n"
    )
    assert in_guest(source) == []
    assert datetime.UTC
