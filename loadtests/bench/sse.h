/* Reads server-sent events from bytes in any portions: lines end in LF, CR or CRLF, an event in an empty line. */
#ifndef SSE_H
#define SSE_H

#include <stdbool.h>
#include <stddef.h>

#define SSE_LINE_BYTES_MAX 4096
#define SSE_NAME_BYTES_MAX 32

/* Called for each event that has data; `data` is terminated by NUL. */
typedef void sse_handler(void *owner, const char *name, const char *data);

struct sse {
    bool after_cr;
    bool has_data;
    size_t line_used;
    size_t data_used;
    char line[SSE_LINE_BYTES_MAX];
    char data[SSE_LINE_BYTES_MAX];
    char name[SSE_NAME_BYTES_MAX];
};

/* Takes `size` bytes; false when a line or an event exceeds its bound. */
bool sse_feed(struct sse *sse, const char *bytes, size_t size, sse_handler *handler, void *owner);

#endif
