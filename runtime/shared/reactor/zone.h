/* Name of the local zone's winter or summer time these days, until the next call. */
const char *sandbox_zone_name(int is_summer);
