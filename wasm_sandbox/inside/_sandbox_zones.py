"""Time zones from the frozen `_sandbox_tzdata`: frozen packages have no resource files to read."""

import io
import zoneinfo
import zoneinfo._common
import zoneinfo._tzpath

MAX_FILE = 1 << 20


def load_tzdata(key):
    """The TZif data of one zone as a file object, as `zoneinfo` asks for it."""
    import _sandbox_tzdata

    try:
        return io.BytesIO(_sandbox_tzdata.ZONES[key])
    except KeyError:
        raise zoneinfo._common.ZoneInfoNotFoundError(f"No time zone found with key {key}") from None


def available_timezones(_on_path=zoneinfo._tzpath.available_timezones):
    """The keys of all zones of the image, and of those in the directories of `zoneinfo.TZPATH`."""
    import _sandbox_tzdata

    return {*_sandbox_tzdata.ZONES, *(_on_path() if zoneinfo.TZPATH else ())}


def zone_file(name):
    """The TZif data of the zone that `TZ` names, or None; the entry point asks when `TZ` has changed."""
    import _sandbox_tzdata

    if not name.startswith("/"):
        return _sandbox_tzdata.ZONES.get(name)
    with open(name, "rb") as file:
        return file.read(MAX_FILE)


def install():
    """Serve `zoneinfo.ZoneInfo(key)` and `zoneinfo.available_timezones()`."""
    zoneinfo._common.load_tzdata = load_tzdata
    zoneinfo._tzpath.available_timezones = zoneinfo.available_timezones = available_timezones
