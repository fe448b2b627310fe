/* The time zone that the environment variable TZ names, for `time` and `datetime`: the C library of the guest knows UTC
 * only. Zones come from the guest's own tables (_sandbox_zones), in the format of RFC 9636; other texts are rules as
 * POSIX has them, such as "EST5EDT,M3.2.0,M11.1.0". What is neither is UTC, as in the GNU C library. */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "zone.h"

enum { HEADER_BYTES = 44, MOST_NAME = 15, MOST_TZ = 255, DAY = 86400, LONGEST_OFFSET = 25 * 3600, COUNTS = 6 };
enum { ISUT, ISSTD, LEAP, TIMES, TYPES, CHARACTERS };

struct kind {
    long offset; /* seconds east of Greenwich */
    int is_summer;
    char name[MOST_NAME + 1];
};

struct change {
    int form; /* 'M', 'J', or 0 for a day from 0 on */
    int month, week, day;
    long seconds;
};

/* A rule of POSIX; COUNT is the number of its kinds of time. */
struct rule {
    int count;
    struct kind kinds[2];
    struct change start, end;
};

static struct {
    char text[MOST_TZ + 1]; /* the value of TZ that this is for */
    struct rule rule;       /* for times after those of the file */
    unsigned char *file;
    const unsigned char *times, *indices, *types, *characters;
    uint32_t count[COUNTS];
} zone = {.rule = {.count = 1, .kinds = {{0, 0, "UTC"}}}};

/* ---- rules ----------------------------------------------------------------------------------- */

static const char *read_name(const char *at, char *name)
{
    size_t size = 0;
    int quoted = *at == '<';
    for (at += quoted; quoted ? *at && *at != '>' : (*at >= 'A' && *at <= 'Z') || (*at >= 'a' && *at <= 'z'); at++)
        if (size < MOST_NAME) name[size++] = *at;
    name[size] = 0;
    if (quoted && *at++ != '>') return NULL;
    return size < 3 ? NULL : at;
}

static const char *read_number(const char *at, int most, int *number)
{
    if (!at || *at < '0' || *at > '9') return NULL;
    for (*number = 0; *at >= '0' && *at <= '9'; at++)
        if ((*number = *number * 10 + (*at - '0')) > most) return NULL;
    return at;
}

/* [+-]hh[:mm[:ss]] */
static const char *read_seconds(const char *at, long *seconds)
{
    int sign = *at == '-' ? -1 : 1, part;
    if (*at == '-' || *at == '+') at++;
    *seconds = 0;
    for (long unit = 3600; unit; unit /= 60) {
        if (!(at = read_number(at, unit == 3600 ? 167 : 59, &part))) return NULL;
        *seconds += part * unit;
        if (*at != ':' || unit == 1) break;
        at++;
    }
    *seconds *= sign;
    return at;
}

static const char *read_change(const char *at, struct change *c)
{
    *c = (struct change){.seconds = 2 * 3600};
    if (*at++ != ',') return NULL;
    if (*at == 'M') {
        c->form = 'M';
        if (!(at = read_number(at + 1, 12, &c->month)) || *at != '.' || !(at = read_number(at + 1, 5, &c->week))) return NULL;
        if (*at != '.' || !(at = read_number(at + 1, 6, &c->day)) || c->month < 1 || c->week < 1) return NULL;
    } else {
        if (*at == 'J') c->form = *at++;
        if (!(at = read_number(at, 365, &c->day))) return NULL;
    }
    return *at == '/' ? read_seconds(at + 1, &c->seconds) : at;
}

/* Read a whole rule; false, and a rule for UTC, if it is none. */
static int read_rule(const char *at, struct rule *rule)
{
    struct rule r = {.count = 1, .kinds = {{.offset = 0}, {.is_summer = 1}}};
    *rule = (struct rule){.count = 1, .kinds = {{0, 0, "UTC"}}};
    if (!(at = read_name(at, r.kinds[0].name))) return 0;
    if (!*at || !strchr("+-0123456789", *at)) { /* a name alone: UTC by that name */
        *rule = r;
        return 1;
    }
    if (!(at = read_seconds(at, &r.kinds[0].offset))) return 0;
    r.kinds[0].offset = -r.kinds[0].offset;
    if (*at) {
        r.count = 2;
        r.kinds[1].offset = r.kinds[0].offset + 3600;
        if (!(at = read_name(at, r.kinds[1].name))) return 0;
        if (*at && *at != ',') {
            if (!(at = read_seconds(at, &r.kinds[1].offset))) return 0;
            r.kinds[1].offset = -r.kinds[1].offset;
        }
        if (!*at) at = ",M3.2.0,M11.1.0";
        if (!(at = read_change(at, &r.start)) || !(at = read_change(at, &r.end)) || *at) return 0;
    }
    if (labs(r.kinds[0].offset) > LONGEST_OFFSET || labs(r.kinds[1].offset) > LONGEST_OFFSET) return 0;
    *rule = r;
    return 1;
}

/* ---- years ----------------------------------------------------------------------------------- */

static int is_leap(int64_t year) { return (year % 4 == 0 && year % 100) || year % 400 == 0; }

/* Days from 1 January 1970 to that of a year. */
static int64_t days_before_year(int64_t year)
{
    int64_t y = year - 1; /* floor divisions: years may be negative */
    int64_t by_4 = y / 4 - (y % 4 < 0), by_100 = y / 100 - (y % 100 < 0), by_400 = y / 400 - (y % 400 < 0);
    return 365 * (year - 1970) + (by_4 - 492) - (by_100 - 19) + (by_400 - 4);
}

static int64_t year_of(int64_t t)
{
    int64_t days = t / DAY - (t % DAY < 0), year = 1970 + days / 365;
    while (days_before_year(year) > days) year--;
    while (days_before_year(year + 1) <= days) year++;
    return year;
}

/* The moment of a change in a year, in seconds of local time. */
static int64_t moment_of(const struct change *c, int64_t year)
{
    static const int BEFORE_MONTH[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365};
    int64_t days = days_before_year(year);
    if (c->form == 'M') {
        int leap = is_leap(year), first = BEFORE_MONTH[c->month - 1] + (leap && c->month > 2);
        int length = BEFORE_MONTH[c->month] + (leap && c->month > 1) - first;
        int weekday = (int)(((days + first + 4) % 7 + 7) % 7); /* 1 January 1970 was a Thursday */
        int day = (c->day - weekday + 7) % 7 + 7 * (c->week - 1);
        days += first + (day >= length ? day - 7 : day);
    } else if (c->form == 'J') days += c->day - 1 + (is_leap(year) && c->day > 59);
    else days += c->day;
    return days * DAY + c->seconds;
}

static struct kind kind_by_rule(const struct rule *r, int64_t t)
{
    if (r->count == 1) return r->kinds[0];
    int64_t year = year_of(t + r->kinds[0].offset);
    int64_t start = moment_of(&r->start, year) - r->kinds[0].offset, end = moment_of(&r->end, year) - r->kinds[1].offset;
    int is_summer = start < end ? t >= start && t < end : t >= start || t < end;
    return r->kinds[is_summer];
}

/* ---- files ------------------------------------------------------------------------------------ */

static uint32_t read_32(const unsigned char *at) { return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3]; }
static int64_t time_at(uint32_t i) { return (int64_t)((uint64_t)read_32(zone.times + 8 * i) << 32 | read_32(zone.times + 8 * i + 4)); }

/* Size of the block behind a header; 0 if there is none. */
static size_t block_size(const unsigned char *header, size_t room, size_t time_bytes)
{
    if (room < HEADER_BYTES || memcmp(header, "TZif", 4)) return 0;
    uint64_t n[COUNTS];
    for (int i = 0; i < COUNTS; i++) n[i] = read_32(header + 20 + 4 * i);
    uint64_t size = n[TIMES] * (time_bytes + 1) + n[TYPES] * 6 + n[CHARACTERS] + n[LEAP] * (time_bytes + 4) + n[ISSTD] + n[ISUT];
    return n[TYPES] && n[CHARACTERS] && size <= room - HEADER_BYTES ? (size_t)size : 0;
}

/* Take over a file's bytes with a NUL behind them; false if they are none of a zone. */
static int read_file(unsigned char *file, size_t size)
{
    size_t first = block_size(file, size, 4);
    if (!first || file[4] < '2') return 0;
    const unsigned char *header = file + HEADER_BYTES + first;
    size_t room = size - HEADER_BYTES - first, second = block_size(header, room, 8);
    if (!second) return 0;
    for (int i = 0; i < COUNTS; i++) zone.count[i] = read_32(header + 20 + 4 * i);
    zone.times = header + HEADER_BYTES;
    zone.indices = zone.times + 8 * (size_t)zone.count[TIMES];
    zone.types = zone.indices + zone.count[TIMES];
    zone.characters = zone.types + 6 * (size_t)zone.count[TYPES];
    for (uint32_t i = 0; i < zone.count[TIMES]; i++) if (zone.indices[i] >= zone.count[TYPES]) return 0;
    if (zone.characters[zone.count[CHARACTERS] - 1]) return 0;
    for (uint32_t i = 0; i < zone.count[TYPES]; i++) if (zone.types[6 * i + 5] >= zone.count[CHARACTERS]) return 0;
    char *footer = (char *)header + HEADER_BYTES + second, *end;
    zone.rule.count = 0;
    if (*footer == '\n' && (end = strchr(footer + 1, '\n'))) {
        *end = 0;
        if (footer[1]) read_rule(footer + 1, &zone.rule);
    }
    zone.file = file;
    return 1;
}

static struct kind kind_in_file(uint32_t type)
{
    const unsigned char *at = zone.types + 6 * type;
    struct kind kind = {.offset = (int32_t)read_32(at), .is_summer = at[4] != 0};
    strncpy(kind.name, (const char *)zone.characters + at[5], MOST_NAME);
    return kind;
}

static struct kind kind_at(int64_t t)
{
    uint32_t low = 0, high = zone.file ? zone.count[TIMES] : 0;
    if (!zone.file || (zone.rule.count && (!high || t >= time_at(high - 1)))) return kind_by_rule(&zone.rule, t);
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (time_at(middle) <= t) low = middle + 1;
        else high = middle;
    }
    return kind_in_file(low ? zone.indices[low - 1] : 0);
}

/* ---- the C library's functions ----------------------------------------------------------------- */

/* The bytes of a zone that the guest has, and a NUL behind them; NULL if it has none of that name. */
static unsigned char *zone_file(const char *name, size_t *size)
{
    PyObject *module = PyImport_ImportModule("_sandbox_zones");
    PyObject *found = module ? PyObject_CallMethod(module, "zone_file", "s", name) : NULL;
    unsigned char *copy = NULL;
    if (found && PyBytes_Check(found) && (copy = malloc((size_t)PyBytes_GET_SIZE(found) + 1))) {
        *size = (size_t)PyBytes_GET_SIZE(found);
        memcpy(copy, PyBytes_AS_STRING(found), *size + 1);
    }
    Py_XDECREF(found);
    Py_XDECREF(module);
    PyErr_Clear();
    return copy;
}

void tzset(void)
{
    const char *text = getenv("TZ");
    if (!text || strlen(text) > MOST_TZ) text = "";
    if (!strcmp(text, zone.text)) return;
    free(zone.file);
    zone.file = NULL;
    strcpy(zone.text, text);
    if (*text == ':') text++;
    size_t size = 0;
    unsigned char *file = *text ? zone_file(text, &size) : NULL;
    if (file && read_file(file, size)) return;
    free(file);
    read_rule(text, &zone.rule);
}

struct tm *localtime_r(const time_t *restrict t, struct tm *restrict tm)
{
    static struct kind shown[2]; /* tm_zone points at the name of the kind of time that was asked for last, or before */
    struct kind kind = kind_at(*t);
    time_t local = *t + kind.offset;
    if (!gmtime_r(&local, tm)) return NULL;
    struct kind *kept = &shown[kind.is_summer];
    *kept = kind;
    tm->tm_isdst = kind.is_summer;
    tm->tm_gmtoff = kind.offset;
    tm->tm_zone = kept->name;
    return tm;
}

struct tm *localtime(const time_t *t)
{
    static struct tm tm;
    return localtime_r(t, &tm);
}

/* The nearest time of the other kind within a year: summer time for winter time, and the reverse. */
static struct kind other_kind(int64_t t, struct kind kind)
{
    for (int64_t days = 7; days <= 371; days += 7) {
        for (int sign = -1; sign <= 1; sign += 2) {
            struct kind found = kind_at(t + sign * days * DAY);
            if (found.is_summer != kind.is_summer) return found;
        }
    }
    return kind;
}

const char *sandbox_zone_name(int is_summer)
{
    static struct kind named;
    int64_t now = time(NULL);
    named = kind_at(now);
    if (named.is_summer != is_summer) named = other_kind(now, named);
    return named.name;
}

time_t mktime(struct tm *tm)
{
    struct tm made = *tm;
    int64_t local = timegm(&made), before = kind_at(local - DAY).offset, after = kind_at(local + DAY).offset;
    /* In a gap neither fits, and the offset before it counts; where a time comes twice, so it does. */
    int64_t t = local - before;
    if (kind_at(t).offset != before && kind_at(local - after).offset == after) t = local - after;
    struct kind kind = kind_at(t);
    if (tm->tm_isdst >= 0 && kind.is_summer != (tm->tm_isdst > 0)) {
        if (kind_at(local - after).is_summer == (tm->tm_isdst > 0) && kind_at(local - after).offset == after) t = local - after;
        else t = local - other_kind(t, kind).offset;
    }
    time_t found = (time_t)t;
    if (!localtime_r(&found, &made)) return -1;
    *tm = made;
    return found;
}
