#include "histogram.h"

#include "clock.h"

void histogram_add(struct histogram *histogram, int64_t ns) {
    int64_t step = ns < 0 ? 0 : ns / HISTOGRAM_STEP_NS;
    if (step >= HISTOGRAM_STEPS)
        step = HISTOGRAM_STEPS - 1;
    histogram->steps[step]++;
    histogram->count++;
}

double histogram_percentile_ms(const struct histogram *histogram, double share) {
    int64_t rank = (int64_t)(share * (double)histogram->count);
    int64_t seen = 0;
    for (int step = 0; step < HISTOGRAM_STEPS; step++) {
        seen += histogram->steps[step];
        if (seen > rank)
            return (double)step * HISTOGRAM_STEP_NS / NS_PER_MS;
    }
    return -1;
}
