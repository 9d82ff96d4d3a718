#include "records.h"

#include "clock.h"

static void write_time(FILE *file, const char *name, int64_t ns, int64_t window_ns) {
    if (ns == 0)
        fprintf(file, "\"%s\": null, ", name);
    else
        fprintf(file, "\"%s\": %.3f, ", name, (double)(ns - window_ns) / NS_PER_MS);
}

void record_write(FILE *file, int64_t window_ns, const struct record *record) {
    fprintf(file, "{");
    write_time(file, "scheduled_ms", record->scheduled_ns, window_ns);
    write_time(file, "opened_ms", record->opened_ns, window_ns);
    write_time(file, "first_token_ms", record->first_token_ns, window_ns);
    write_time(file, "ended_ms", record->ended_ns, window_ns);
    write_time(file, "largest_gap_ms", record->largest_gap_ns, 0);
    fprintf(file, "\"tokens\": %ld, \"outcome\": \"%s\"}\n", record->tokens, record->outcome);
}
