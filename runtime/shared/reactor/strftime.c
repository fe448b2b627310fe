/* wcsftime, which `time.strftime` calls, in the C locale and with the extensions of the GNU C library: flags, widths,
 * more conversions, and a directive that is none as it stands. musl's gives nothing at all for a text with one of these.
 *
 * What it does was found out from the GNU C library, and is compared with it in tests/public_reports. */
#define _GNU_SOURCE /* tm_gmtoff, tm_zone */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <wchar.h>

#include "zone.h"

enum { NUMBER_CHARACTERS = 24, DAYS_PER_WEEK = 7, BASE_YEAR = 1900 };

struct output {
    wchar_t *text;
    size_t size, room; /* ROOM includes the NUL */
    int is_full;
};

/* One directive: %[flags][width][modifier]conversion. */
struct directive {
    wchar_t pad, modifier, conversion;
    int width, upper, lower, changes_case;
};

static const char *const DAYS[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
static const char *const MONTHS[] = {
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
};

static void put(struct output *out, wchar_t character)
{
    if (out->size + 1 >= out->room) out->is_full = 1;
    else out->text[out->size++] = character;
}

static void put_padding(struct output *out, const struct directive *d, long size)
{
    for (long i = size; i < d->width && !out->is_full; i++) put(out, d->pad == '0' ? '0' : ' ');
}

static wchar_t in_case(const struct directive *d, wchar_t c)
{
    if (d->lower) return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
    return d->upper && c >= 'a' && c <= 'z' ? c - ('a' - 'A') : c;
}

static void put_text(struct output *out, const struct directive *d, const char *text, size_t size)
{
    put_padding(out, d, (long)size);
    for (size_t i = 0; i < size; i++) put(out, in_case(d, (unsigned char)text[i]));
}

/* A number of at least DIGITS digits, its sign among them. */
static void put_number(struct output *out, const struct directive *d, int digits, long long value)
{
    char text[NUMBER_CHARACTERS], *end = text + sizeof text, *start = end;
    unsigned long long rest = value < 0 ? -(unsigned long long)value : (unsigned long long)value;
    do *--start = (char)('0' + rest % 10);
    while (rest /= 10);
    long size = end - start + (value < 0), wanted = digits;
    wchar_t pad = d->pad ? d->pad : '0';
    if (pad == '-') wanted = size;
    else if (d->width > wanted) wanted = d->width;
    if (pad == '_') for (long i = size; i < wanted && !out->is_full; i++) put(out, ' ');
    if (pad == '-') put_padding(out, d, size);
    if (value < 0) put(out, '-');
    if (pad != '_') for (long i = size; i < wanted && !out->is_full; i++) put(out, '0');
    while (start < end) put(out, (unsigned char)*start++);
}

static void put_spaced(struct output *out, const struct directive *d, long long value)
{
    struct directive spaced = *d;
    if (d->pad != '0' && d->pad != '-') spaced.pad = '_';
    put_number(out, &spaced, 2, value);
}

static long long floored(long long value, long long by) { return value / by - (value % by < 0); }

static int is_leap(long long year) { return (year % 4 == 0 && year % 100) || year % 400 == 0; }

/* Week of ISO 8601 and the year that it belongs to. */
static int iso_week(const struct tm *tm, long long *year)
{
    int monday = (tm->tm_wday + 6) % DAYS_PER_WEEK;
    int week = (tm->tm_yday - monday + 10) / DAYS_PER_WEEK;
    *year = (long long)tm->tm_year + BASE_YEAR;
    int first = ((monday - tm->tm_yday) % DAYS_PER_WEEK + DAYS_PER_WEEK) % DAYS_PER_WEEK; /* weekday of 1 January */
    int has_53 = first == 3 || (first == 2 && is_leap(*year));
    if (week < 1) {
        *year -= 1;
        first = (first + 6 - is_leap(*year)) % DAYS_PER_WEEK; /* a year has 52 weeks and a day, or two */
        return first == 3 || (first == 2 && is_leap(*year)) ? 53 : 52;
    }
    if (week == 53 && !has_53) {
        *year += 1;
        return 1;
    }
    return week;
}

static void format(struct output *out, const wchar_t *text, const struct tm *tm, int upper);

static void put_format(struct output *out, const struct directive *d, const char *text, const struct tm *tm)
{
    wchar_t wide[24], made[256];
    size_t size = strlen(text);
    for (size_t i = 0; i <= size; i++) wide[i] = (unsigned char)text[i];
    struct output inner = {made, 0, sizeof made / sizeof *made, 0};
    format(&inner, wide, tm, d->upper);
    put_padding(out, d, (long)inner.size);
    for (size_t i = 0; i < inner.size; i++) put(out, made[i]);
}

static void put_name(struct output *out, const struct directive *d, const char *const *names, int count, int at, size_t most)
{
    struct directive cased = *d;
    cased.upper |= d->changes_case;
    const char *name = at < 0 || at >= count ? "?" : names[at];
    size_t size = strlen(name);
    put_text(out, &cased, name, most && size > most ? most : size);
}

static void put_offset(struct output *out, const struct directive *d, const struct tm *tm)
{
    if (tm->tm_isdst < 0) return;
    long minutes = tm->tm_gmtoff / 60;
    struct directive number = *d, sign = *d;
    long hours_minutes = minutes < 0 ? -minutes : minutes;
    hours_minutes = hours_minutes / 60 * 100 + hours_minutes % 60;
    put_text(out, &sign, tm->tm_gmtoff < 0 ? "-" : "+", 1);
    put_number(out, &number, 4, hours_minutes);
}

/* Whether the modifier may stand before the conversion. */
static int may_stand(const struct directive *d)
{
    static const char *const not_after_e = "bBhdeHIklMmSUVgGWwj", *const not_after_o = "cxXY";
    static const char *const after_none = "aADF";
    if (!d->modifier) return 1;
    if (d->conversion > 127 || !d->conversion) return 0;
    int c = (int)d->conversion;
    if (strchr(after_none, c)) return 0;
    return !strchr(d->modifier == 'E' ? not_after_e : not_after_o, c);
}

/* Write what a directive stands for; false if it is none. */
static int convert(struct output *out, const struct directive *d, const struct tm *tm)
{
    struct directive cased = *d;
    long long year = (long long)tm->tm_year + BASE_YEAR, iso_year;
    int hour = tm->tm_hour % 12 ? tm->tm_hour % 12 : 12;
    if (!may_stand(d)) return 0;
    switch (d->conversion) {
    case '%': put_text(out, d, "%", 1); break;
    case 'a': put_name(out, d, DAYS, 7, tm->tm_wday, 3); break;
    case 'A': put_name(out, d, DAYS, 7, tm->tm_wday, 0); break;
    case 'b': case 'h': put_name(out, d, MONTHS, 12, tm->tm_mon, 3); break;
    case 'B': put_name(out, d, MONTHS, 12, tm->tm_mon, 0); break;
    case 'c': put_format(out, d, "%a %b %e %H:%M:%S %Y", tm); break;
    case 'C': put_number(out, d, 1, floored(year, 100)); break;
    case 'D': case 'x': put_format(out, d, "%m/%d/%y", tm); break;
    case 'd': put_number(out, d, 2, tm->tm_mday); break;
    case 'e': put_spaced(out, d, tm->tm_mday); break;
    case 'F': put_format(out, d, "%Y-%m-%d", tm); break;
    case 'H': put_number(out, d, 2, tm->tm_hour); break;
    case 'I': put_number(out, d, 2, hour); break;
    case 'j': put_number(out, d, 3, tm->tm_yday + 1); break;
    case 'k': put_spaced(out, d, tm->tm_hour); break;
    case 'l': put_spaced(out, d, hour); break;
    case 'M': put_number(out, d, 2, tm->tm_min); break;
    case 'm': put_number(out, d, 2, tm->tm_mon + 1); break;
    case 'n': put_text(out, d, "\n", 1); break;
    case 't': put_text(out, d, "\t", 1); break;
    case 'P': case 'p':
        if (d->conversion == 'P' || d->changes_case) cased.lower = 1;
        put_text(out, &cased, tm->tm_hour > 11 ? "PM" : "AM", 2);
        break;
    case 'R': put_format(out, d, "%H:%M", tm); break;
    case 'r': put_format(out, d, "%I:%M:%S %p", tm); break;
    case 'S': put_number(out, d, 2, tm->tm_sec); break;
    case 's': {
        struct tm copy = *tm;
        char digits[NUMBER_CHARACTERS];
        put_text(out, d, digits, (size_t)snprintf(digits, sizeof digits, "%lld", (long long)mktime(&copy)));
        break;
    }
    case 'T': case 'X': put_format(out, d, "%H:%M:%S", tm); break;
    case 'u': put_number(out, d, 1, (tm->tm_wday + 6) % DAYS_PER_WEEK + 1); break;
    case 'U': put_number(out, d, 2, (tm->tm_yday - tm->tm_wday + 7) / 7); break;
    case 'W': put_number(out, d, 2, (tm->tm_yday - (tm->tm_wday + 6) % 7 + 7) / 7); break;
    case 'V': put_number(out, d, 2, iso_week(tm, &iso_year)); break;
    case 'G': iso_week(tm, &iso_year); put_number(out, d, 1, iso_year); break;
    case 'g': iso_week(tm, &iso_year); put_number(out, d, 2, (iso_year % 100 + 100) % 100); break;
    case 'w': put_number(out, d, 1, tm->tm_wday); break;
    case 'Y': put_number(out, d, 1, year); break;
    case 'y': put_number(out, d, 2, (year % 100 + 100) % 100); break;
    case 'Z': {
        const char *zone = tm->tm_zone ? tm->tm_zone : tm->tm_isdst < 0 ? "" : sandbox_zone_name(tm->tm_isdst > 0);
        if (d->changes_case) cased.lower = 1;
        put_text(out, &cased, zone, strlen(zone));
        break;
    }
    case 'z': put_offset(out, d, tm); break;
    default: return 0;
    }
    return 1;
}

static void format(struct output *out, const wchar_t *text, const struct tm *tm, int upper)
{
    while (*text && !out->is_full) {
        if (*text != '%') {
            put(out, *text++);
            continue;
        }
        const wchar_t *start = text++;
        struct directive d = {.upper = upper, .width = -1};
        for (; *text && wcschr(L"_-0^#", *text); text++) {
            if (*text == '^') d.upper = 1;
            else if (*text == '#') d.changes_case = 1;
            else d.pad = *text;
        }
        for (; *text >= '0' && *text <= '9'; text++) {
            if (d.width < 0) d.width = 0;
            d.width = d.width > (INT_MAX - 9) / 10 ? INT_MAX : d.width * 10 + (int)(*text - '0');
        }
        if (*text == 'E' || *text == 'O') d.modifier = *text++;
        d.conversion = *text;
        if (d.conversion) text++;
        if (convert(out, &d, tm)) continue;
        d.upper |= d.changes_case && (d.conversion == 'b' || d.conversion == 'B' || d.conversion == 'h');
        put_padding(out, &d, text - start);
        while (start < text) put(out, in_case(&d, *start++));
    }
}

size_t wcsftime(wchar_t *restrict text, size_t room, const wchar_t *restrict format_text, const struct tm *restrict tm)
{
    struct output out = {text, 0, room, room == 0};
    format(&out, format_text, tm, 0);
    if (out.is_full) return 0;
    text[out.size] = 0;
    return out.size;
}
