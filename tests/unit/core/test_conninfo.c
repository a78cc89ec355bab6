#include "core/conninfo.h"
#include "core/options.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define ALL "********"

static const struct {
    const char *conninfo;
    const char *redacted;
} cases[] = {
    /* URIs */
    {"postgresql://u:secret@h:5432/db", "postgresql://u:" ALL "@h:5432/db"},
    {"postgres://u:secret@h/db?sslmode=require", "postgres://u:" ALL "@h/db?sslmode=require"},
    {"postgresql://u:s%40e%2Fc@h/db", "postgresql://u:" ALL "@h/db"},
    {"postgresql://u:a:b@h/db", "postgresql://u:" ALL "@h/db"},
    {"postgresql://:secret@h", "postgresql://:" ALL "@h"},
    {"postgresql://u:a?b@h/db", "postgresql://u:" ALL "@h/db"},
    {"postgresql://u:@h/db", "postgresql://u:@h/db"},
    {"postgresql://u@h/db", "postgresql://u@h/db"},
    {"postgresql://", "postgresql://"},
    {"postgresql:///db?host=/run/pg", "postgresql:///db?host=/run/pg"},
    {"postgresql://u:secret@h1:1,h2:2,[::1]:3/db", "postgresql://u:" ALL "@h1:1,h2:2,[::1]:3/db"},
    {"postgresql://h/db?user=u&password=secret", "postgresql://h/db?user=u&password=" ALL},
    {"postgresql://h/db?password=secret&user=u", "postgresql://h/db?password=" ALL "&user=u"},
    {"postgresql://h/db?password=a=b", "postgresql://h/db?password=" ALL},
    {"postgresql://h?sslpassword=x&sslkey=/k", "postgresql://h?sslpassword=" ALL "&sslkey=/k"},
    {"postgresql://h/db?p%61ssword=secret", "postgresql://h/db?p%61ssword=" ALL},
    {"postgresql://h/db?%70%61%73%73%77%6F%72%64=x",
     "postgresql://h/db?%70%61%73%73%77%6F%72%64=" ALL},
    {"postgresql://u:one@h/db?password=two", "postgresql://u:" ALL "@h/db?password=" ALL},
    {"postgresql://h/db?scram_client_key=x&scram_server_key=y",
     "postgresql://h/db?scram_client_key=" ALL "&scram_server_key=" ALL},
    {"postgresql://h?dbname=host%3Dx%20password%3Dy", "postgresql://h?dbname=" ALL},
    /* URIs that a person means otherwise than libpq reads them: all hidden */
    {"postgresql://u:pa@ss@h/db", ALL},
    {"postgresql://u:pa/ss@h/db", ALL},
    {"postgresql://u:pa/s?s@h/db", ALL},
    {"postgresql://u:secret/db", ALL},
    {"postgresql://u:secret", ALL},
    {"postgresql://u:secret?user=x", ALL},
    {"postgresql://u%3Asecret@h/db", ALL},
    {"postgresql://u%3asecret/db", ALL},
    {"postgresql://u:a@h1,u:b@h2/db", ALL},
    {"postgresql://h/db?password=a&b", ALL},
    {"postgresql://h/db?password=a&b=c", ALL},
    {"postgresql://h/db?PASSWORD=a", ALL},
    {"postgresql://h/db?p%6", ALL},
    {"postgresql://h/db?p%6=secret", ALL},
    {"postgresql://h/db?p%zzassword=secret", ALL},
    {"postgresql://h/db?passwort=secret", ALL},
    {"postgresql://h/password=secret", ALL},
    {"postgresql://[::1/db", ALL},
    {"POSTGRESQL://u:secret@h/db", ALL},
    {"mysql://u:secret@h/db", ALL},
    {" postgresql://u:secret@h/db", ALL},
    /* keywords */
    {"host=h user=u password=secret dbname=d", "host=h user=u password=" ALL " dbname=d"},
    {"password=secret", "password=" ALL},
    {"password = secret host = h", "password = " ALL " host = h"},
    {"password\t=\n secret\nhost=h", "password\t=\n " ALL "\nhost=h"},
    {"password='a b' host=h", "password=" ALL " host=h"},
    {"password='a\\'b c'host=h", "password=" ALL "host=h"},
    {"password='a\\\\' host=h", "password=" ALL " host=h"},
    {"password=a\\ b host=h", "password=" ALL " host=h"},
    {"password=a'b host=h", "password=" ALL " host=h"},
    {"password=a=b host=h", "password=" ALL " host=h"},
    {"password=  host=h", "password=  " ALL}, /* libpq takes "host=h" for the password */
    {"password=''", "password=" ALL},
    {"host=a,b port=1,2 sslpassword=x passfile=/p",
     "host=a,b port=1,2 sslpassword=" ALL " passfile=/p"},
    {"options='-c search_path=x' application_name='a b'",
     "options='-c search_path=x' application_name='a b'"},
    {"dbname='host=x password=y' user=u", "dbname=" ALL " user=u"},
    {"", ""},
    /* keywords not understood: all hidden */
    {"password=my secret", ALL},
    {"password=my secret host=h", ALL},
    {"password=my se=cret", ALL},
    {"host=h Password=secret", ALL},
    {"host=h pass=secret", ALL},
    {"host=h password='secret", ALL},
    {"host=h password='secret\\", ALL},
    {"host=h password secret", ALL},
    {"=secret", ALL},
    {"secret", ALL},
    {"dbname=postgresql://u:secret@h/db", ALL},
};

Test(conninfo, redacts)
{
    for (size_t i = 0; i < PEN_COUNTOF(cases); i++) {
        char *redacted = pen_conninfo_redact(cases[i].conninfo);
        cr_expect_str_eq(redacted, cases[i].redacted, "%s -> %s", cases[i].conninfo, redacted);
        free(redacted);
    }
}

/* What redacting shows is what scrubbing leaves; all else becomes stars, and the length stays. */
Test(conninfo, scrubs_in_place)
{
    for (size_t i = 0; i < PEN_COUNTOF(cases); i++) {
        char *text = pen_strdup(cases[i].conninfo);
        pen_conninfo_scrub(text);
        cr_expect_eq(strlen(text), strlen(cases[i].conninfo));
        const char *shown = cases[i].redacted;
        const char *at = text;
        while (*shown != '\0') {
            if (strncmp(shown, ALL, strlen(ALL)) == 0) {
                shown += strlen(ALL);
                at += strspn(at, "*");
            } else {
                cr_expect_eq(*shown, *at, "%s -> %s", cases[i].conninfo, text);
                shown++;
                at += *at != '\0' ? 1 : 0;
            }
        }
        cr_expect_eq(*at, '\0', "%s -> %s", cases[i].conninfo, text);
        free(text);
    }
}

Test(conninfo, names_what_is_wrong_with_the_form)
{
    cr_expect_null(pen_conninfo_problem("postgresql://u:p@h/db"));
    cr_expect_null(pen_conninfo_problem("postgres://"));
    cr_expect_null(pen_conninfo_problem("host=h dbname='a b'"));
    /* libpq may know more keywords than we do */
    cr_expect_null(pen_conninfo_problem("host=h new_keyword=1"));
    cr_expect_str_eq(pen_conninfo_problem(""), "it is empty");
    cr_expect_str_eq(pen_conninfo_problem(" \n"), "it is empty");
    const char *neither =
        "it is neither a URI that begins with postgresql:// nor a list of keyword=value";
    cr_expect_str_eq(pen_conninfo_problem("mydb"), neither);
    cr_expect_str_eq(pen_conninfo_problem("mysql://u@h/db"), neither);
    cr_expect_str_eq(pen_conninfo_problem("host=h db"), neither);
    cr_expect_str_eq(pen_conninfo_problem("host=h =x"), neither);
    cr_expect_str_eq(pen_conninfo_problem("host=h password='x"), "a quote in it is not closed");
}

Test(conninfo, suspects)
{
    cr_expect(pen_conninfo_suspect("postgresql://h"));
    cr_expect(pen_conninfo_suspect("host=h PassWord = x"));
    cr_expect(pen_conninfo_suspect("passwords password=x"));
    cr_expect_not(pen_conninfo_suspect("password_resets"));
    cr_expect_not(pen_conninfo_suspect("public.orders"));
    cr_expect_not(pen_conninfo_suspect(""));
}

/* Every cut of every case: nothing is read behind the end (under ASan), and what is left of the
 * password is still not shown. */
Test(conninfo, survives_every_cut)
{
    for (size_t i = 0; i < PEN_COUNTOF(cases); i++) {
        for (size_t len = 0; len <= strlen(cases[i].conninfo); len++) {
            char *cut = strndup(cases[i].conninfo, len);
            char *redacted = pen_conninfo_redact(cut);
            cr_expect_null(strstr(redacted, "secret"), "%s -> %s", cut, redacted);
            (void)pen_conninfo_problem(cut);
            pen_conninfo_scrub(cut);
            cr_expect_null(strstr(cut, "secret"), "%s", cut);
            free(redacted);
            free(cut);
        }
    }
}
