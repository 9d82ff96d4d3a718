/* load: many concurrent event streams of one server, read by one thread, each reopened as it ends.
 *
 *     load --port 8000 --path /v1/chat/completions --body '{...}' --streams 200 --ramp 5 --seconds 15 --stall-ms 100
 *
 * It opens the streams evenly over the ramp (with --seed: at random moments of it), waits a second, and prints "window";
 * figures are of the `seconds` from there on, printed as one line of JSON, and with --records also a line for each stream.
 * It then keeps the streams open, so that the caller can look at the memory of what serves them, until it is terminated.
 * With --arrivals, streams begin that often a second whatever the server does, at most --streams at a time; those that
 * find no place wait for one, and that is part of their latency. Tokens are what `origin` sends: the text
 * "@<index>:<CLOCK_MONOTONIC in ns>"; with --unstamped, whatever comes in an event `token`. --host is another machine's. */
#include "arrivals.h"
#include "clock.h"
#include "histogram.h"
#include "records.h"
#include "response.h"
#include "sockets.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_MAX 1024
#define READ_BYTES_MAX 65536
#define REQUEST_BYTES_MAX 16384
#define STATUS_MAX 600
#define SETTLE_NS NS_PER_SECOND       /* between ramp and window: the last streams get past their first token */
#define WAIT_MS 1
#define TEND_NS NS_PER_MS             /* walking all streams after each event would cost more than reading it */
#define REOPEN_NS (50 * NS_PER_MS)    /* after a failure only, lest a refusing server be measured by how fast it refuses */
#define STUCK_NS (10 * NS_PER_SECOND) /* a stream without a byte for so long is given up */
#define HOLD_NS (20 * NS_PER_SECOND)  /* longest life after the report, should nobody terminate us */

enum ending { RUNNING, FINISHED, FAILED };

struct stream {
    int fd; /* -1 while closed */
    bool connected;
    bool stalled;
    enum ending ending;
    long next_index;
    int64_t last_byte_ns, last_token_ns, reopen_ns;
    struct record record;
    bool counted; /* had a gap within the window, so belongs to those of which some stalled */
    struct response response;
};

static struct {
    int port, streams;
    long seed; /* 0: evenly */
    double ramp_seconds, seconds, stall_ms;
    double arrivals_per_second; /* 0: a stream begins when another has ended */
    bool unstamped;
    const char *host, *path, *body, *header;
    const char *records;
} options = {.host = "127.0.0.1", .body = "", .header = ""};

/* What went wrong counts from the first stream on, all else within the window. */
static struct {
    long tokens, opened, finished;
    long refused, truncated, failed, stuck, malformed, misordered;
    long http_errors[STATUS_MAX];
    long streams_seen, streams_stalled;
    int64_t stream_ns; /* open streams, summed over the time that each pass of the loop took */
    struct histogram ttft, gap, delay;
    struct histogram start_lag; /* from a stream's scheduled time to its connect */
    struct histogram lag;       /* time of a pass of the loop beyond its wait: how late we may have read a byte */
} figures;

static struct stream *streams;
static struct sockaddr_in server;
static char request[REQUEST_BYTES_MAX];
static size_t request_size;
static int epoll_fd, open_streams;
static bool in_window;
static int64_t window_ns;
static FILE *records;
static struct arrivals arrivals;

/* The streams' lifecycle */

static void watch(struct stream *stream, int operation, uint32_t wanted) {
    struct epoll_event event = {.events = wanted, .data.ptr = stream};
    epoll_ctl(epoll_fd, operation, stream->fd, &event);
}

static void record_stream(struct stream *stream, const char *outcome) {
    if (records == NULL || !in_window)
        return;
    stream->record.tokens = stream->next_index;
    stream->record.outcome = outcome;
    record_write(records, window_ns, &stream->record);
}

static void close_stream(struct stream *stream, const char *outcome, int64_t reopen_ns) {
    stream->record.ended_ns = now_ns();
    record_stream(stream, outcome);
    if (stream->fd >= 0) {
        close(stream->fd);
        open_streams--;
    }
    stream->fd = -1;
    stream->reopen_ns = reopen_ns;
}

static void fail_stream(struct stream *stream, const char *outcome, long *counter) {
    ++*counter;
    close_stream(stream, outcome, now_ns() + REOPEN_NS);
}

static void open_stream(struct stream *stream, int64_t scheduled_ns) {
    stream->connected = stream->stalled = stream->counted = false;
    stream->ending = RUNNING;
    stream->next_index = 0;
    stream->last_token_ns = 0;
    response_reset(&stream->response);
    stream->last_byte_ns = now_ns();
    stream->record = (struct record){.scheduled_ns = scheduled_ns, .opened_ns = stream->last_byte_ns};
    if (in_window)
        histogram_add(&figures.start_lag, stream->last_byte_ns - scheduled_ns);
    stream->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    open_streams += stream->fd >= 0;
    if (stream->fd < 0 || (connect(stream->fd, (struct sockaddr *)&server, sizeof server) != 0 && errno != EINPROGRESS)) {
        fail_stream(stream, "refused", &figures.refused);
        return;
    }
    send_at_once(stream->fd);
    watch(stream, EPOLL_CTL_ADD, EPOLLOUT);
    figures.opened += in_window;
}

static void send_request(struct stream *stream) {
    if (send(stream->fd, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size) {
        fail_stream(stream, "refused", &figures.refused);
        return;
    }
    stream->connected = true;
    watch(stream, EPOLL_CTL_MOD, EPOLLIN);
}

/* What arrives */

static void count_gap(struct stream *stream, int64_t gap_ns) {
    histogram_add(&figures.gap, gap_ns);
    if (gap_ns > stream->record.largest_gap_ns)
        stream->record.largest_gap_ns = gap_ns;
    if (!stream->counted) {
        stream->counted = true;
        figures.streams_seen++;
    }
    if (!stream->stalled && (double)gap_ns > options.stall_ms * NS_PER_MS) {
        stream->stalled = true;
        figures.streams_stalled++;
    }
}

static void count_token(struct stream *stream, long index, int64_t sent_ns) {
    int64_t now = now_ns();
    figures.misordered += index != stream->next_index;
    stream->next_index = index + 1;
    if (stream->record.first_token_ns == 0)
        stream->record.first_token_ns = now;
    if (in_window) {
        figures.tokens++;
        histogram_add(&figures.delay, now - sent_ns);
        if (stream->last_token_ns == 0)
            histogram_add(&figures.ttft, now - stream->record.scheduled_ns);
        else
            count_gap(stream, now - stream->last_token_ns);
    }
    stream->last_token_ns = now;
}

/* A gateway may put several tokens into one event; each of them counts. */
static void count_tokens(struct stream *stream, const char *data) {
    long index;
    long long sent_ns;
    while ((data = strchr(data, '@')) != NULL) {
        if (sscanf(data, "@%ld:%lld", &index, &sent_ns) == 2)
            count_token(stream, index, sent_ns);
        data++;
    }
}

/* OpenAI's streams end in the data "[DONE]" or an error object, native ones in an event `done` or `error`. */
static void read_event(void *owner, const char *name, const char *data) {
    struct stream *stream = owner;
    if (strcmp(data, "[DONE]") == 0 || strcmp(name, "done") == 0)
        stream->ending = FINISHED;
    else if (strncmp(data, "{\"error\"", 8) == 0 || strcmp(name, "error") == 0)
        stream->ending = FAILED;
    else if (!options.unstamped)
        count_tokens(stream, data);
    else if (strcmp(name, "token") == 0)
        count_token(stream, stream->next_index, now_ns());
}

static void fail_by_status(struct stream *stream, int status) {
    char outcome[16];
    snprintf(outcome, sizeof outcome, "http_%d", status);
    fail_stream(stream, outcome, &figures.http_errors[status % STATUS_MAX]);
}

/* Closes a stream that has ended, by what it said, or without a word at `eof`. */
static void settle_stream(struct stream *stream, bool eof) {
    int status = stream->response.status;
    if (status != 0 && status != 200)
        fail_by_status(stream, status);
    else if (stream->ending == FAILED)
        fail_stream(stream, "failed", &figures.failed);
    else if (stream->ending == FINISHED) {
        figures.finished += in_window;
        close_stream(stream, "finished", 0);
    } else if (eof || stream->response.state == ENDED) {
        if (status == 0)
            fail_stream(stream, "refused", &figures.refused);
        else
            fail_stream(stream, "truncated", &figures.truncated);
    }
}

static void read_stream(struct stream *stream) {
    static char bytes[READ_BYTES_MAX];
    ssize_t size = read(stream->fd, bytes, sizeof bytes);
    if (size < 0 && errno == EAGAIN)
        return;
    if (size > 0) {
        stream->last_byte_ns = now_ns();
        if (!response_feed(&stream->response, bytes, (size_t)size, read_event, stream)) {
            fail_stream(stream, "malformed", &figures.malformed);
            return;
        }
    }
    settle_stream(stream, size <= 0);
}

/* The loop */

/* The next of the ramp opens when it is due, and one that has ended at once; or whoever waits longest takes its place. */
static void fill_place(struct stream *stream, int64_t now) {
    int64_t scheduled_ns = stream->reopen_ns > 0 ? stream->reopen_ns : now;
    if (options.arrivals_per_second > 0) {
        if (arrivals_take(&arrivals, &scheduled_ns))
            open_stream(stream, scheduled_ns);
    } else if (now >= stream->reopen_ns)
        open_stream(stream, scheduled_ns);
}

/* Opens what is due, and gives up the stuck ones. */
static void tend_streams(void) {
    static int64_t tended_ns;
    int64_t now = now_ns();
    if (now - tended_ns < TEND_NS)
        return;
    tended_ns = now;
    if (options.arrivals_per_second > 0)
        arrivals_advance(&arrivals, now);
    for (int i = 0; i < options.streams; i++) {
        if (streams[i].fd >= 0 && now - streams[i].last_byte_ns > STUCK_NS)
            fail_stream(&streams[i], "stuck", &figures.stuck);
        if (streams[i].fd < 0)
            fill_place(&streams[i], now);
    }
}

static void poll_streams(void) {
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(epoll_fd, events, EVENTS_MAX, WAIT_MS);
    for (int i = 0; i < count; i++) {
        struct stream *stream = events[i].data.ptr;
        if (stream->connected)
            read_stream(stream);
        else
            send_request(stream);
    }
}

static void run_until(int64_t end_ns) {
    for (int64_t now = now_ns(), then; now < end_ns; now = then) {
        int open = open_streams;
        tend_streams();
        poll_streams();
        then = now_ns();
        if (in_window) {
            figures.stream_ns += open * (then - now);
            histogram_add(&figures.lag, then - now - WAIT_MS * NS_PER_MS);
        }
    }
}

/* When each stream first opens: evenly over the ramp, or at moments drawn from the seed. */
static void plan_ramp(int64_t start_ns) {
    unsigned short random[3] = {0x330e, (unsigned short)options.seed, (unsigned short)(options.seed >> 16)};
    for (int i = 0; i < options.streams; i++) {
        double place = options.seed ? draw(random) : (double)i / options.streams;
        streams[i].reopen_ns = start_ns + (int64_t)(place * options.ramp_seconds * NS_PER_SECOND);
    }
}

/* The report */

static double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void print_percentiles(const char *name, const struct histogram *histogram) {
    printf("\"%s\": {\"count\": %lld, \"p50\": %.2f, \"p99\": %.2f, \"p999\": %.2f}, ", name, (long long)histogram->count,
           histogram_percentile_ms(histogram, 0.5), histogram_percentile_ms(histogram, 0.99),
           histogram_percentile_ms(histogram, 0.999));
}

static void print_http_errors(void) {
    const char *separator = "";
    printf("\"http_errors\": {");
    for (int status = 0; status < STATUS_MAX; status++)
        if (figures.http_errors[status] > 0) {
            printf("%s\"%d\": %ld", separator, status, figures.http_errors[status]);
            separator = ", ";
        }
    printf("}");
}

static void print_report(double window_seconds, double load_cpu_seconds) {
    printf("{\"window_seconds\": %.3f, \"cpu_seconds\": %.3f, \"tokens\": %ld, \"opened\": %ld, \"finished\": %ld, ",
           window_seconds, load_cpu_seconds, figures.tokens, figures.opened, figures.finished);
    printf("\"streams_seen\": %ld, \"streams_stalled\": %ld, ", figures.streams_seen, figures.streams_stalled);
    print_percentiles("ttft_ms", &figures.ttft);
    print_percentiles("gap_ms", &figures.gap);
    print_percentiles("delay_ms", &figures.delay);
    print_percentiles("lag_ms", &figures.lag);
    print_percentiles("start_lag_ms", &figures.start_lag);
    printf("\"in_flight_mean\": %.2f, \"scheduled\": %ld, \"waiting\": %ld, ",
           (double)figures.stream_ns / NS_PER_SECOND / window_seconds, arrivals.scheduled,
           arrivals.waiting + arrivals.overflowed);
    printf("\"refused\": %ld, \"truncated\": %ld, \"failed\": %ld, \"stuck\": %ld, \"malformed\": %ld, \"misordered\": %ld, ",
           figures.refused, figures.truncated, figures.failed, figures.stuck, figures.malformed, figures.misordered);
    print_http_errors();
    printf("}\n");
    fflush(stdout);
}

static void open_window(void) {
    printf("window\n");
    fflush(stdout);
    in_window = true;
    window_ns = now_ns();
    arrivals.scheduled = 0;
}

static void close_window(double cpu_before) {
    double window_seconds = (double)(now_ns() - window_ns) / NS_PER_SECOND;
    for (int i = 0; i < options.streams; i++)
        if (streams[i].fd >= 0)
            record_stream(&streams[i], "open");
    in_window = false;
    if (records != NULL)
        fclose(records);
    records = NULL;
    print_report(window_seconds, cpu_seconds() - cpu_before);
}

static void measure(void) {
    int64_t start_ns = now_ns();
    plan_ramp(start_ns);
    if (options.arrivals_per_second > 0)
        arrivals_start(&arrivals, options.arrivals_per_second, options.seed, start_ns);
    run_until(start_ns + (int64_t)(options.ramp_seconds * NS_PER_SECOND) + SETTLE_NS);
    double cpu_before = cpu_seconds();
    open_window();
    run_until(window_ns + (int64_t)(options.seconds * NS_PER_SECOND));
    close_window(cpu_before);
    run_until(now_ns() + HOLD_NS);
}

static void write_request(void) {
    int size = snprintf(request, sizeof request,
                        "POST %s HTTP/1.1\r\nHost: %s:%d\r\nAccept: text/event-stream\r\n"
                        "Content-Type: application/json\r\n%s%sContent-Length: %zu\r\n\r\n%s",
                        options.path, options.host, options.port, options.header, *options.header ? "\r\n" : "", strlen(options.body), options.body);
    if (size < 0 || (size_t)size >= sizeof request) {
        fprintf(stderr, "load: the request exceeds %d bytes\n", REQUEST_BYTES_MAX);
        exit(2);
    }
    request_size = (size_t)size;
}

static void set_option(int name, const char *value) {
    switch (name) {
    case 'p':
        options.port = atoi(value);
        break;
    case 'u':
        options.path = value;
        break;
    case 'b':
        options.body = value;
        break;
    case 'n':
        options.streams = atoi(value);
        break;
    case 'r':
        options.ramp_seconds = atof(value);
        break;
    case 's':
        options.seconds = atof(value);
        break;
    case 'g':
        options.stall_ms = atof(value);
        break;
    case 'a':
        options.arrivals_per_second = atof(value);
        break;
    case 'e':
        options.seed = atol(value);
        break;
    case 'h':
        options.header = value;
        break;
    case 'o':
        options.records = value;
        break;
    case 't':
        options.host = value;
        break;
    case 'x':
        options.unstamped = true;
        break;
    }
}

static void read_options(int argc, char **argv) {
    static const struct option names[] = {
        {"port", required_argument, NULL, 'p'},    {"path", required_argument, NULL, 'u'},
        {"body", required_argument, NULL, 'b'},    {"streams", required_argument, NULL, 'n'},
        {"ramp", required_argument, NULL, 'r'},    {"seconds", required_argument, NULL, 's'},
        {"stall-ms", required_argument, NULL, 'g'}, {"arrivals", required_argument, NULL, 'a'},
        {"seed", required_argument, NULL, 'e'},    {"header", required_argument, NULL, 'h'},
        {"records", required_argument, NULL, 'o'}, {"host", required_argument, NULL, 't'},
        {"unstamped", no_argument, NULL, 'x'},     {0}};
    int name;
    while ((name = getopt_long(argc, argv, "", names, NULL)) != -1)
        set_option(name, optarg);
    if (options.port < 1 || options.path == NULL || options.streams < 1 || options.ramp_seconds <= 0 ||
        options.seconds <= 0 || options.stall_ms <= 0) {
        fprintf(stderr, "usage: load --port PORT --path PATH --body JSON --streams N --ramp SECONDS --seconds SECONDS "
                        "--stall-ms MS [--arrivals PER_SECOND] [--seed N] [--header 'NAME: VALUE'] [--records FILE] [--host HOST] [--unstamped]\n");
        exit(2);
    }
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    write_request();
    raise_file_limit();
    if (!find_address(options.host, options.port, &server)) {
        fprintf(stderr, "load: %s has no IPv4 address\n", options.host);
        return 1;
    }
    epoll_fd = epoll_create1(0);
    streams = calloc((size_t)options.streams, sizeof *streams);
    if (options.records != NULL)
        records = fopen(options.records, "w");
    if (streams == NULL || epoll_fd < 0 || (options.records != NULL && records == NULL)) {
        perror("load");
        return 1;
    }
    for (int i = 0; i < options.streams; i++)
        streams[i].fd = -1;
    measure();
    return 0;
}
