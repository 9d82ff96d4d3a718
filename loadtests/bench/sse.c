#include "sse.h"

#include <stdio.h>
#include <string.h>

static void dispatch(struct sse *sse, sse_handler *handler, void *owner) {
    if (sse->has_data) {
        sse->data[sse->data_used] = '\0';
        handler(owner, sse->name, sse->data);
    }
    sse->has_data = false;
    sse->data_used = 0;
    sse->name[0] = '\0';
}

static bool append_data(struct sse *sse, const char *value) {
    size_t size = strlen(value);
    if (sse->data_used + size + 2 > sizeof sse->data)
        return false;
    if (sse->has_data)
        sse->data[sse->data_used++] = '\n';
    memcpy(sse->data + sse->data_used, value, size);
    sse->data_used += size;
    sse->has_data = true;
    return true;
}

/* The value behind "field:" and one optional space; NULL when the line is another field. */
static const char *value_of(const char *line, const char *field) {
    size_t size = strlen(field);
    if (strncmp(line, field, size) != 0 || line[size] != ':')
        return NULL;
    return line + size + (line[size + 1] == ' ' ? 2 : 1);
}

static bool end_line(struct sse *sse, sse_handler *handler, void *owner) {
    const char *value;
    sse->line[sse->line_used] = '\0';
    if (sse->line_used == 0)
        dispatch(sse, handler, owner);
    else if ((value = value_of(sse->line, "data")) != NULL)
        return append_data(sse, value);
    else if ((value = value_of(sse->line, "event")) != NULL)
        snprintf(sse->name, sizeof sse->name, "%s", value);
    return true;
}

bool sse_feed(struct sse *sse, const char *bytes, size_t size, sse_handler *handler, void *owner) {
    for (size_t i = 0; i < size; i++) {
        char byte = bytes[i];
        bool second_of_crlf = byte == '\n' && sse->after_cr;
        sse->after_cr = byte == '\r';
        if (second_of_crlf)
            continue;
        if (byte == '\n' || byte == '\r') {
            if (!end_line(sse, handler, owner))
                return false;
            sse->line_used = 0;
        } else {
            if (sse->line_used + 1 >= sizeof sse->line)
                return false;
            sse->line[sse->line_used++] = byte;
        }
    }
    return true;
}
