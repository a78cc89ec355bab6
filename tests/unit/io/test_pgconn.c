#include "io/pgconn.h"

#include <criterion/criterion.h>
#include <string.h>

/* Parts of passwords: none of them may show in any message. */
static const char *const secrets[] = {"s3cret", "h1dden"};

static void expect_hidden(const char *conninfo, const pen_error *err)
{
    for (size_t i = 0; i < PEN_COUNTOF(secrets); i++) {
        cr_assert_null(strstr(err->text, secrets[i]), "%s\nshows in: %s", conninfo, err->text);
    }
}

Test(pgconn, strings_that_can_be_read)
{
    const char *const right[] = {"host=a dbname=b user=c password='d e'",
                                 "postgresql://u:p%40ss@h:5432/db?sslmode=require",
                                 "postgres://h1,h2:5433/db",
                                 "dbname=x",
                                 "",
                                 "host='/var/run' port=1"};
    for (size_t i = 0; i < PEN_COUNTOF(right); i++) {
        pen_error err = {.text = ""};
        cr_assert(pen_pgconn_check_conninfo(right[i], "source", &err), "%s: %s", right[i],
                  err.text);
    }
}

Test(pgconn, strings_that_cannot_be_read_hide_their_passwords)
{
    const char *const wrong[] = {
        "host=a password=s3cret nonsense",
        "host=a password='s3cret",
        "password=s3cret =",
        "password = s3cret unknown_word=1",
        "password=s3cret host",
        "passwort=s3cret",
        "postgresql://u:s3cret@h:5432/db?nonsense=1",
        "postgresql://u:s3cret@[::1/db",
        "postgresql://u:s3cret@h/db?sslmode",
        "postgresql://h/db?password=s3cret&nonsense=1",
        "postgresql://u:s3cret%ZZ@h/db",
        "postgres://u:s3cret@h:1/db?a=b=h1dden",
        "postgresql//u:s3cret@h/db",
        "u:s3cret@h",
    };
    for (size_t i = 0; i < PEN_COUNTOF(wrong); i++) {
        pen_error err = {.text = ""};
        cr_assert_not(pen_pgconn_check_conninfo(wrong[i], "target", &err), "%s", wrong[i]);
        cr_assert_eq(err.kind, PEN_ERROR_CONFIG);
        cr_assert_not_null(strstr(err.text, "--target"), "%s", err.text);
        expect_hidden(wrong[i], &err);
    }
}

static bool open_source(const char *conninfo, pen_error *err)
{
    const pen_pgconn_options options = {
        .conninfo = conninfo, .side = "source", .application_name = "penstock test"};
    pen_pgconn *conn = (pen_pgconn *)(uintptr_t)16;
    bool ok = pen_pgconn_open(&options, &conn, err);
    cr_assert(ok || conn == NULL);
    pen_pgconn_close(conn);
    return ok;
}

Test(pgconn, a_server_that_is_not_there_may_come_back, .timeout = 60)
{
    const char *const away[] = {
        "host=/nonexistent/penstock user=u password=s3cret dbname=d",
        "postgresql://u:s3cret@127.0.0.1:1/db",
        "postgresql://u:s3cret@127.0.0.1:1/db?password=h1dden",
        "host=127.0.0.1 port=1 user=u password='s3cret h1dden'",
    };
    for (size_t i = 0; i < PEN_COUNTOF(away); i++) {
        pen_error err;
        cr_assert_not(open_source(away[i], &err), "%s", away[i]);
        cr_assert_eq(err.kind, PEN_ERROR_RETRY, "%s: %s", away[i], err.text);
        cr_assert_not_null(strstr(err.text, "source: cannot connect"), "%s", err.text);
        cr_assert_null(strchr(err.text, '\n'), "one line: %s", err.text);
        expect_hidden(away[i], &err);
    }
}

Test(pgconn, strings_that_libpq_reads_and_cannot_use, .timeout = 60)
{
    const char *const wrong[] = {
        "host=127.0.0.1 port=nonsense password=s3cret",
        "host=127.0.0.1 port=99999 password=s3cret",
        "postgresql://u:s3cret@127.0.0.1:1/db?sslmode=nonsense",
        /* A password that is not percent-encoded: libpq takes a part of it for the port. */
        "postgresql://u:s3cret@127.0.0.1:h1dden/db",
        "postgresql://u:s3cret@h1dden:nonsense@127.0.0.1:1/db",
        "postgresql://u:h1dden@s3cret@127.0.0.1:1/db",
    };
    for (size_t i = 0; i < PEN_COUNTOF(wrong); i++) {
        pen_error err;
        cr_assert_not(open_source(wrong[i], &err), "%s", wrong[i]);
        cr_assert_eq(err.kind, PEN_ERROR_CONFIG, "%s: %s", wrong[i], err.text);
        cr_assert_not_null(strstr(err.text, "--source"), "%s", err.text);
        expect_hidden(wrong[i], &err);
    }
}

Test(pgconn, closing_nothing)
{
    pen_pgconn_close(NULL);
    pen_pgresult_clear(NULL);
}

/* ---- where a connection string leads ---- */

static pen_pgplace place_of(const char *conninfo)
{
    pen_pgplace place;
    pen_pgconn_place(conninfo, &place);
    return place;
}

Test(pgconn, a_place_has_no_secret)
{
    static const char *const keys[] = {"PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE"};
    for (size_t i = 0; i < PEN_COUNTOF(keys); i++) {
        unsetenv(keys[i]);
    }
    pen_pgplace place = place_of("postgresql://me:s3cret@h.example:5433/shop?sslpassword=s3cret");
    cr_expect_str_eq(place.host, "h.example");
    cr_expect_str_eq(place.port, "5433");
    cr_expect_str_eq(place.database, "shop");
    cr_expect_str_eq(place.user, "me");
    place =
        place_of("host=/run/pg user=me@azure password=s3cret dbname='postgresql://u:s3cret@h/d'");
    cr_expect_str_eq(place.host, "/run/pg");
    cr_expect_str_eq(place.user, "me@azure");
    cr_expect_str_eq(place.database, "", "a connection string in it may have a password");
    place = place_of("host=ret@h.example dbname=d");
    cr_expect_str_eq(place.host, "", "it may be the end of a password");
    place = place_of("host=a,b port=1,2 dbname=d");
    cr_expect_str_eq(place.host, "a,b");
    place = place_of("service=there user=me");
    cr_expect_str_eq(place.host, "service there");
    setenv("PGHOST", "env.example", 1);
    setenv("PGPASSWORD", "s3cret", 1);
    place = place_of("dbname=d");
    cr_expect_str_eq(place.host, "env.example");
    place = place_of("nonsense");
    cr_expect_str_eq(place.database, "");
}
