"""Time zones from the frozen `_sandbox_tzdata`: frozen packages have no resource files to read."""

import io
import zoneinfo
import zoneinfo._common
import zoneinfo._tzpath


def load_tzdata(key):
    """The TZif data of one zone as a file object, as `zoneinfo` asks for it."""
    import _sandbox_tzdata

    try:
        return io.BytesIO(_sandbox_tzdata.ZONES[key])
    except KeyError:
        raise zoneinfo._common.ZoneInfoNotFoundError(f"No time zone found with key {key}") from None


def available_timezones():
    """The keys of all zones of the image."""
    import _sandbox_tzdata

    return set(_sandbox_tzdata.ZONES)


def install():
    """Serve `zoneinfo.ZoneInfo(key)` and `zoneinfo.available_timezones()`."""
    zoneinfo._common.load_tzdata = load_tzdata
    zoneinfo._tzpath.available_timezones = zoneinfo.available_timezones = available_timezones
