/* A line of JSON for each stream that ended within the window or was open at its end; times in ms from the window's start. */
#ifndef RECORDS_H
#define RECORDS_H

#include <stdint.h>
#include <stdio.h>

struct record {
    int64_t scheduled_ns, opened_ns, first_token_ns, ended_ns; /* 0 where it did not happen */
    int64_t largest_gap_ns;                                    /* of gaps that ended within the window */
    long tokens;
    const char *outcome;
};

void record_write(FILE *file, int64_t window_ns, const struct record *record);

#endif
