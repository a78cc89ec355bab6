#include "apply/service.h"

#include "apply/page.h"
#include "core/log.h"
#include "core/sync.h"
#include "io/control.h"
#include "io/http.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Between two samples, of which the rates are made. */
#define SAMPLE_US (1000 * 1000)

struct pen_service {
    pen_status *status;
    pen_thread thread;
    pen_cell stop;
    /* the thread's */
    pen_control *control; /* NULL: the directory is not ours yet, or it could not be made */
    bool tried;           /* to make it */
    pen_http *http;       /* or NULL */
    int64_t sampled_us;
};

static char *give_json(void *arg)
{
    pen_report *report = pen_status_look(arg);
    char *text = pen_report_json(report);
    pen_report_destroy(report);
    return text;
}

static void say(pen_http_answer *answer, unsigned status, const char *type, char *body)
{
    *answer = (pen_http_answer){status, type, body, strlen(body)};
}

static void say_health(pen_status *status, pen_http_answer *answer)
{
    pen_report *report = pen_status_look(status);
    char text[sizeof(report->trouble) + 64];
    snprintf(text, sizeof(text), "%s\n",
             report->healthy ? pen_state_word(report->state) : report->trouble);
    say(answer, report->healthy ? 200 : 503, "text/plain; charset=utf-8", pen_strdup(text));
    pen_report_destroy(report);
}

static void say_page(pen_http_answer *answer)
{
    char *copy = pen_malloc(pen_page_size);
    memcpy(copy, pen_page, pen_page_size);
    *answer = (pen_http_answer){200, "text/html; charset=utf-8", copy, pen_page_size};
}

static void handle(void *arg, const char *path, pen_http_answer *answer)
{
    pen_service *service = arg;
    if (strcmp(path, "/") == 0) {
        say_page(answer);
    } else if (strcmp(path, "/status") == 0) {
        say(answer, 200, "application/json", give_json(service->status));
    } else if (strcmp(path, "/metrics") == 0) {
        pen_report *report = pen_status_look(service->status);
        say(answer, 200, "text/plain; version=0.0.4; charset=utf-8", pen_report_metrics(report));
        pen_report_destroy(report);
    } else if (strcmp(path, "/healthz") == 0) {
        say_health(service->status, answer);
    } else {
        say(answer, 404, "text/plain; charset=utf-8",
            pen_strdup("there are /, /status, /metrics and /healthz\n"));
    }
}

static void make_control(pen_service *service)
{
    const char *dir = pen_status_dir(service->status);
    pen_error err;
    if (service->tried || dir == NULL) {
        return;
    }
    service->tried = true;
    if (!pen_control_open(dir, give_json, service->status, &service->control, &err)) {
        service->control = NULL;
        pen_log(PEN_LOG_WARN, "%s; \"penstock status\" cannot ask this run, which goes on",
                err.text);
    }
}

/* The earlier of two times; -1 is none. */
static int earlier(int a, int b)
{
    return a < 0 || (b >= 0 && b < a) ? b : a;
}

static void wait(pen_service *service)
{
    struct pollfd fds[3] = {{.fd = pen_status_wake_fd(service->status), .events = POLLIN}};
    nfds_t count = 1;
    int64_t due_us = service->sampled_us + SAMPLE_US - pen_now_us();
    int timeout_ms = due_us <= 0 ? 0 : (int)(due_us / 1000) + 1;
    if (service->control != NULL) {
        fds[count++] = (struct pollfd){.fd = pen_control_fd(service->control), .events = POLLIN};
        timeout_ms = earlier(timeout_ms, pen_control_timeout_ms(service->control));
    }
    if (service->http != NULL) {
        fds[count++] = (struct pollfd){.fd = pen_http_fd(service->http), .events = POLLIN};
        timeout_ms = earlier(timeout_ms, pen_http_timeout_ms(service->http));
    }
    (void)poll(fds, count, timeout_ms);
    uint64_t told;
    (void)!read(fds[0].fd, &told, sizeof(told));
}

static void run(void *arg)
{
    pen_service *service = arg;
    /* [SERVICE-1] acquire: pairs with the release in pen_service_stop. */
    while (!pen_cell_read(&service->stop)) {
        make_control(service);
        if (pen_now_us() - service->sampled_us >= SAMPLE_US) {
            service->sampled_us = pen_now_us();
            pen_status_sample(service->status);
        }
        wait(service);
        if (service->control != NULL) {
            pen_control_turn(service->control);
        }
        if (service->http != NULL) {
            pen_http_turn(service->http);
        }
    }
}

static bool open_http(pen_service *service, const char *where, pen_error *err)
{
    pen_address address;
    pen_address bound;
    char text[PEN_ADDRESS_TEXT_SIZE];
    if (!pen_address_parse(where, &address)) {
        return pen_error_set(err, PEN_ERROR_CONFIG, "--http %s is no address", where);
    }
    if (!pen_http_open(&address, handle, service, &service->http, &bound, err)) {
        return false;
    }
    pen_log(PEN_LOG_INFO, "showing how it goes at http://%s/", pen_address_format(&bound, text));
    if (!pen_address_is_loopback(&bound)) {
        pen_log(PEN_LOG_WARN,
                "everybody who reaches %s can read how it goes, table names and messages "
                "included, without a password; listen at 127.0.0.1, or let a proxy ask for one, "
                "where that is not meant",
                pen_address_format(&bound, text));
    }
    return true;
}

bool pen_service_start(pen_status *status, const char *http, pen_service **service, pen_error *err)
{
    pen_service *made = pen_calloc(1, sizeof(*made));
    made->status = status;
    pen_cell_init(&made->stop, 0);
    if ((http != NULL && !open_http(made, http, err)) ||
        !pen_thread_start(&made->thread, PEN_ROLE_STATUS, "status", run, made, err)) {
        pen_http_close(made->http);
        free(made);
        return false;
    }
    *service = made;
    return true;
}

void pen_service_stop(pen_service *service)
{
    if (service != NULL) {
        /* [SERVICE-1] release: pairs with the acquire in the status thread. */
        pen_cell_publish(&service->stop, 1);
        pen_status_wake(service->status);
        pen_thread_join(&service->thread);
        pen_control_close(service->control);
        pen_http_close(service->http);
        free(service);
    }
}
