#include "io/control.h"

#include "core/sync.h"
#include "core/thread.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static char dir[] = "/tmp/penstock-control-XXXXXX";
static pen_control *control;
static pen_error err;
static unsigned asked;
static size_t answer_size;
static pen_cell stop;

static char *give(void *arg)
{
    (void)arg;
    asked++;
    char *text = pen_malloc(answer_size + 1);
    memset(text, 'x', answer_size);
    text[answer_size] = '\0';
    return text;
}

static void set_up(void)
{
    cr_assert_not_null(mkdtemp(dir));
    answer_size = 10;
    cr_assert(pen_control_open(dir, give, NULL, &control, &err), "%s", err.text);
}

static void tear_down(void)
{
    char command[80];
    pen_control_close(control);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    cr_assert_eq(system(command), 0);
}

TestSuite(control, .init = set_up, .fini = tear_down);

static void serve(void *arg)
{
    (void)arg;
    while (!pen_cell_read(&stop)) {
        struct pollfd it = {.fd = pen_control_fd(control), .events = POLLIN};
        (void)poll(&it, 1, 20);
        pen_control_turn(control);
    }
}

/* What pen_control_ask gives while a thread serves. */
static pen_control_result ask(char **answer)
{
    pen_thread thread = {0};
    pen_cell_init(&stop, 0);
    cr_assert(pen_thread_start(&thread, PEN_ROLE_STATUS, "status", serve, NULL, &err));
    pen_control_result result = pen_control_ask(dir, 60000, answer, &err);
    pen_cell_publish(&stop, 1);
    pen_thread_join(&thread);
    return result;
}

static int connect_raw(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/control", dir);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static bool is_closed(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

Test(control, one_question_one_answer)
{
    char *answer = NULL;
    cr_assert_eq(ask(&answer), PEN_CONTROL_ANSWERED);
    cr_expect_str_eq(answer, "xxxxxxxxxx");
    cr_expect_eq(asked, 1);
    free(answer);
}

Test(control, an_answer_that_no_socket_holds_at_once)
{
    char *answer = NULL;
    answer_size = (size_t)3 << 20;
    cr_assert_eq(ask(&answer), PEN_CONTROL_ANSWERED);
    cr_expect_eq(strlen(answer), answer_size);
    free(answer);
}

Test(control, nobody_is_there)
{
    char *answer = NULL;
    pen_control_close(control);
    control = NULL;
    cr_expect_eq(pen_control_ask(dir, 100, &answer, &err), PEN_CONTROL_NOBODY);
    cr_expect_eq(pen_control_ask("/nowhere/at/all", 100, &answer, &err), PEN_CONTROL_NOBODY);
    /* Somebody listens, and never answers. */
    cr_assert(pen_control_open(dir, give, NULL, &control, &err));
    cr_expect_eq(pen_control_ask(dir, 100, &answer, &err), PEN_CONTROL_FAILED);
    cr_expect_not_null(strstr(err.text, "does not answer"));
    cr_expect_null(answer);
}

Test(control, who_is_there_longest_makes_room)
{
    int fds[40];
    for (unsigned i = 0; i < PEN_COUNTOF(fds); i++) {
        fds[i] = connect_raw();
        pen_control_turn(control);
        usleep(2000); /* so that each came at a time of its own */
    }
    cr_expect(is_closed(fds[0]) && is_closed(fds[7]), "32 have room");
    cr_expect_not(is_closed(fds[8]) || is_closed(fds[39]));
    cr_assert_eq(send(fds[39], "status\n", 7, 0), 7);
    pen_control_turn(control);
    char text[20] = "";
    cr_expect_eq(recv(fds[39], text, sizeof(text) - 1, MSG_DONTWAIT), 10);
    cr_expect(is_closed(fds[39]));
    for (unsigned i = 0; i < PEN_COUNTOF(fds); i++) {
        close(fds[i]);
    }
}

Test(control, the_silent_are_sent_away)
{
    cr_expect_eq(pen_control_timeout_ms(control), -1);
    int64_t since_us = pen_now_us();
    int fd = connect_raw();
    pen_control_turn(control);
    int timeout_ms = pen_control_timeout_ms(control);
    int passed_ms = (int)((pen_now_us() - since_us) / 1000);
    cr_expect(timeout_ms + passed_ms >= 4990 && timeout_ms <= 5001, "%d", timeout_ms);
    usleep((useconds_t)timeout_ms * 1000);
    pen_control_turn(control);
    cr_expect(is_closed(fd));
    cr_expect_eq(pen_control_timeout_ms(control), -1);
    close(fd);
}

Test(control, files)
{
    char path[80];
    struct stat status;
    snprintf(path, sizeof(path), "%s/control", dir);
    cr_assert_eq(stat(path, &status), 0);
    cr_expect(S_ISSOCK(status.st_mode) && (status.st_mode & 0777) == 0600);
    /* The next one, whose lock the directory is by now, makes its own in its place. */
    pen_control *next = NULL;
    cr_assert(pen_control_open(dir, give, NULL, &next, &err), "%s", err.text);
    pen_control_close(control);
    control = next;
    cr_expect_eq(access(path, F_OK), 0, "the earlier one leaves it alone");
    pen_control_close(control);
    control = NULL;
    cr_expect_eq(access(path, F_OK), -1);
    /* What is no socket is nobody's to remove. */
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    close(fd);
    cr_expect_not(pen_control_open(dir, give, NULL, &next, &err));
    cr_expect_not_null(strstr(err.text, "no socket is in its place"));
    cr_expect_eq(access(path, F_OK), 0);
}
