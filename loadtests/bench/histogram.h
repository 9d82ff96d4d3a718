/* Counts durations in steps of 10 µs up to 10 s. Four megabytes each, touched only where values fall: exact percentiles
 * without the rounding of logarithmic buckets, which at 50 ms would be wider than what a gateway adds. */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEP_NS 10000LL
#define HISTOGRAM_STEPS 1000000

struct histogram {
    int64_t count;
    uint32_t steps[HISTOGRAM_STEPS];
};

/* Values below 0 count as 0, values beyond the range as its end. */
void histogram_add(struct histogram *histogram, int64_t ns);

/* The value in ms below or at which `share` (0..1) of all values lie; -1 without values. */
double histogram_percentile_ms(const struct histogram *histogram, double share);

#endif
