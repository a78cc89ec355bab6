#include "apply/statedir.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char root[] = "/tmp/penstock-statedir-XXXXXX";
static char path[64];

static void set_up(void)
{
    cr_assert_not_null(mkdtemp(root));
    snprintf(path, sizeof(path), "%s/state", root);
}

static void remove_file(const char *name)
{
    char file[128];
    snprintf(file, sizeof(file), "%s/%s", path, name);
    unlink(file);
}

static void tear_down(void)
{
    remove_file("lock");
    if (rmdir(path) != 0) {
        unlink(path);
    }
    rmdir(root);
}

TestSuite(statedir, .init = set_up, .fini = tear_down, .timeout = 30);

static pen_statedir *open_it(void)
{
    pen_statedir *dir = NULL;
    pen_error err;
    cr_assert(pen_statedir_open(path, &dir, &err), "%s", err.text);
    return dir;
}

static void expect_refused(const char *at, pen_error_kind kind, int sys_errno, const char *words)
{
    pen_statedir *dir = NULL;
    pen_error err;
    cr_assert_not(pen_statedir_open(at, &dir, &err));
    cr_assert_null(dir);
    cr_assert_eq(err.kind, kind, "%s", err.text);
    cr_assert_eq(err.sys_errno, sys_errno, "%s", err.text);
    cr_assert_not_null(strstr(err.text, words), "%s", err.text);
    cr_assert_not_null(strstr(err.text, at), "%s", err.text);
}

Test(statedir, is_made_for_its_owner_alone)
{
    mode_t before = umask(0);
    pen_statedir *dir = open_it();
    umask(before);
    struct stat status;
    cr_assert_eq(stat(path, &status), 0);
    cr_assert(S_ISDIR(status.st_mode));
    cr_assert_eq(status.st_mode & 07777, 0700);
    char file[128];
    snprintf(file, sizeof(file), "%s/lock", path);
    cr_assert_eq(stat(file, &status), 0);
    cr_assert_eq(status.st_mode & 07777, 0600);
    snprintf(file, sizeof(file), "%s/checkpoint", path);
    cr_assert_str_eq(pen_statedir_checkpoint(dir), file);
    pen_statedir_close(dir);
}

Test(statedir, one_that_is_there_is_used)
{
    cr_assert_eq(mkdir(path, 0750), 0);
    pen_statedir_close(open_it());
    struct stat status;
    cr_assert_eq(stat(path, &status), 0);
    cr_assert_eq(status.st_mode & 07777, 0750, "it stays as the operator made it");
}

Test(statedir, is_held_until_closed)
{
    pen_statedir *dir = open_it();
    expect_refused(path, PEN_ERROR_FATAL, 0, "another penstock is running");
    expect_refused(path, PEN_ERROR_FATAL, 0, "another penstock is running");
    pen_statedir_close(dir);
    pen_statedir_close(open_it());
}

/* The lock goes with the process, however that ends. */
Test(statedir, is_free_after_a_kill)
{
    int ready[2];
    cr_assert_eq(pipe(ready), 0);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        pen_statedir *dir;
        pen_error err;
        bool ok = pen_statedir_open(path, &dir, &err);
        (void)!write(ready[1], ok ? "y" : "n", 1);
        pause();
        _exit(0);
    }
    char answer = 0;
    cr_assert_eq(read(ready[0], &answer, 1), 1);
    cr_assert_eq(answer, 'y');
    expect_refused(path, PEN_ERROR_FATAL, 0, "another penstock is running");
    cr_assert_eq(kill(child, SIGKILL), 0);
    cr_assert_eq(waitpid(child, NULL, 0), child);
    pen_statedir_close(open_it());
    close(ready[0]);
    close(ready[1]);
}

Test(statedir, a_program_that_is_started_does_not_keep_the_lock)
{
    pen_statedir *dir = open_it();
    int started[2];
    cr_assert_eq(pipe2(started, O_CLOEXEC), 0);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        execlp("sleep", "sleep", "20", (char *)NULL);
        _exit(127);
    }
    close(started[1]);
    char none;
    cr_assert_eq(read(started[0], &none, 1), 0); /* until it is the other program */
    close(started[0]);
    pen_statedir_close(dir);
    pen_statedir *again = open_it();
    pen_statedir_close(again);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

Test(statedir, paths_that_cannot_be_used)
{
    char deep[128];
    snprintf(deep, sizeof(deep), "%s/no/such", root);
    expect_refused(deep, PEN_ERROR_CONFIG, ENOENT, "cannot make the state directory");
    expect_refused("/proc/penstock", PEN_ERROR_CONFIG, ENOENT, "--dir");
    /* A file in its place. */
    close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    expect_refused(path, PEN_ERROR_CONFIG, ENOTDIR, "cannot use the state directory");
    snprintf(deep, sizeof(deep), "%s/below", path);
    expect_refused(deep, PEN_ERROR_CONFIG, ENOTDIR, "cannot make the state directory");
}

Test(statedir, one_that_is_not_ours_to_write)
{
    if (geteuid() == 0) {
        /* Root may write everywhere: become nobody, for this process only. */
        cr_assert_eq(seteuid(65534), 0);
    } else {
        cr_assert_eq(chmod(root, 0500), 0);
    }
    expect_refused(path, PEN_ERROR_CONFIG, EACCES, "cannot make the state directory");
    if (getuid() == 0) {
        cr_assert_eq(seteuid(0), 0);
    }
    cr_assert_eq(chmod(root, 0711), 0);
    cr_assert_eq(mkdir(path, 0700), 0);
    if (geteuid() == 0) {
        cr_assert_eq(seteuid(65534), 0);
    } else {
        cr_assert_eq(chmod(path, 0500), 0);
    }
    expect_refused(path, PEN_ERROR_CONFIG, EACCES, "cannot use the state directory");
    if (getuid() == 0) {
        cr_assert_eq(seteuid(0), 0);
    }
}

Test(statedir, closing_nothing)
{
    pen_statedir_close(NULL);
}

static void write_lock_file(const char *text)
{
    char file[128];
    snprintf(file, sizeof(file), "%s/lock", path);
    FILE *out = fopen(file, "w");
    cr_assert_not_null(out);
    cr_assert_geq(fputs(text, out), 0);
    cr_assert_eq(fclose(out), 0);
}

Test(statedir, keeps_its_id)
{
    pen_statedir *dir = open_it();
    uint64_t id = pen_statedir_id(dir);
    pen_statedir_close(dir);
    dir = open_it();
    cr_assert_eq(pen_statedir_id(dir), id);
    pen_statedir_close(dir);
    remove_file("lock");
    dir = open_it();
    cr_assert_neq(pen_statedir_id(dir), id);
    pen_statedir_close(dir);
}

Test(statedir, an_id_that_is_not_whole_is_made_anew)
{
    static const char *const texts[] = {"", "0123456789abcdef", "0123456789abcdeg\n", "0123\n"};
    cr_assert_eq(mkdir(path, 0700), 0);
    for (size_t i = 0; i < PEN_COUNTOF(texts); i++) {
        write_lock_file(texts[i]);
        pen_statedir *dir = open_it();
        uint64_t id = pen_statedir_id(dir);
        pen_statedir_close(dir);
        dir = open_it();
        cr_assert_eq(pen_statedir_id(dir), id, "%s", texts[i]);
        pen_statedir_close(dir);
    }
}

/* A copy that somebody else uses at the same time must not pass for this one. */
Test(statedir, a_copy_has_another_id)
{
    cr_assert_eq(mkdir(path, 0700), 0);
    write_lock_file("0123456789abcdef\n");
    pen_statedir *dir = open_it();
    uint64_t id = pen_statedir_id(dir);
    pen_statedir_close(dir);
    char from[128];
    char to[128];
    snprintf(from, sizeof(from), "%s/lock", path);
    snprintf(to, sizeof(to), "%s/kept", path);
    cr_assert_eq(rename(from, to), 0);
    write_lock_file("0123456789abcdef\n");
    dir = open_it();
    cr_assert_neq(pen_statedir_id(dir), id);
    pen_statedir_close(dir);
    remove_file("kept");
}
