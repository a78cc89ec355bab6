#include "core/conninfo.h"

#include "core/options.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* What libpq skips between keywords (isspace in the C locale). */
#define SPACES " \t\n\v\f\r"

#define HIDDEN "********"

/* Keywords whose values may be shown (PostgreSQL 18, "Parameter Key Words"). The list says what is
 * harmless, not what is secret: a keyword that a later libpq adds, or a piece of a password that
 * looks like a keyword, must not be shown because nobody thought of it. */
static const char *const plain_keywords[] = {
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "max_protocol_version",
    "min_protocol_version",
    "options",
    "passfile",
    "port",
    "replication",
    "require_auth",
    "requirepeer",
    "service",
    "servicefile",
    "ssl",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
};

static const char *const secret_keywords[] = {
    "oauth_client_secret", "password", "scram_client_key", "scram_server_key", "sslpassword",
};

/* What a look at a connection string found. */
typedef struct conninfo_scan {
    const char *text;
    unsigned char *secret; /* one byte for each of text's: 1 where it must not be shown */
    const char *problem;   /* why libpq will refuse it, or NULL */
} conninfo_scan;

static bool is_listed(const char *const *words, size_t count, const char *word, size_t len)
{
    for (size_t i = 0; i < count; i++) {
        if (strlen(words[i]) == len && memcmp(words[i], word, len) == 0) {
            return true;
        }
    }
    return false;
}

static void mark(conninfo_scan *scan, const char *begin, const char *end)
{
    memset(scan->secret + (begin - scan->text), 1, (size_t)(end - begin));
}

static bool contains(const char *begin, const char *end, const char *word)
{
    size_t len = strlen(word);
    for (; (size_t)(end - begin) >= len; begin++) {
        if (strncasecmp(begin, word, len) == 0) {
            return true;
        }
    }
    return false;
}

/* Marks the value between `begin` and `end` if `keyword` makes it secret. False when the keyword
 * is not known, and the text therefore not understood. */
static bool judge(conninfo_scan *scan, const char *keyword, size_t keyword_len, const char *begin,
                  const char *end)
{
    if (is_listed(secret_keywords, PEN_COUNTOF(secret_keywords), keyword, keyword_len)) {
        mark(scan, begin, end);
        return true;
    }
    if (!is_listed(plain_keywords, PEN_COUNTOF(plain_keywords), keyword, keyword_len)) {
        return false;
    }
    /* A connection string inside a value, as in dbname='host=… password=…'. */
    if (contains(begin, end, "password")) {
        mark(scan, begin, end);
    }
    return true;
}

static int hex_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Decodes %XX of a URI's keyword. Returns its length; 0 when it is broken, or longer than any
 * keyword of libpq is. */
static size_t decode_keyword(const char *begin, const char *end, char *keyword, size_t size)
{
    size_t len = 0;
    while (begin < end) {
        if (len == size) {
            return 0;
        }
        if (*begin != '%') {
            keyword[len++] = *begin++;
            continue;
        }
        if (end - begin < 3 || hex_value(begin[1]) < 0 || hex_value(begin[2]) < 0) {
            return 0;
        }
        keyword[len++] = (char)(hex_value(begin[1]) * 16 + hex_value(begin[2]));
        begin += 3;
    }
    return len;
}

/* "keyword=value&…", behind the question mark. False when not understood. */
static bool scan_query(conninfo_scan *scan, const char *query)
{
    while (*query != '\0') {
        const char *end = query + strcspn(query, "&");
        const char *equals = memchr(query, '=', (size_t)(end - query));
        char keyword[64];
        size_t len = equals == NULL ? 0 : decode_keyword(query, equals, keyword, sizeof(keyword));
        if (len == 0 || !judge(scan, keyword, len, equals + 1, end)) {
            return false;
        }
        query = *end == '&' ? end + 1 : end;
    }
    return true;
}

/* "host:port,[::1]:port,…" up to `end`. False when something behind a colon is no port: it may be
 * the password of "user:password" whose "@host" was forgotten, or has an unescaped slash. */
static bool scan_hosts(const char *hosts, const char *end)
{
    while (hosts < end) {
        if (*hosts == '[') {
            const char *bracket = memchr(hosts, ']', (size_t)(end - hosts));
            if (bracket == NULL) {
                return false;
            }
            hosts = bracket + 1;
        }
        while (hosts < end && *hosts != ':' && *hosts != ',') {
            hosts++;
        }
        if (hosts < end && *hosts == ':') {
            hosts++;
            hosts += strspn(hosts, "0123456789");
        }
        if (hosts < end && *hosts++ != ',') {
            return false;
        }
    }
    return true;
}

/* `rest` is behind "postgresql://". As in libpq, user and password end at the first '@' unless a
 * '/' comes before it. False when not understood. */
static bool scan_uri(conninfo_scan *scan, const char *rest)
{
    const char *stop = rest + strcspn(rest, "@/");
    if (*stop == '@') {
        const char *colon = memchr(rest, ':', (size_t)(stop - rest));
        if (colon != NULL) {
            mark(scan, colon + 1, stop);
        } else if (contains(rest, stop, "%3a")) {
            return false;
        }
        rest = stop + 1;
    }
    const char *path = rest + strcspn(rest, "/?");
    const char *query = path + strcspn(path, "?");
    /* Another '@' is a password with an unescaped '@' or '/', which libpq cuts in the wrong place
     * and a person reads in the right one. */
    if (strchr(rest, '@') != NULL || contains(rest, query, "password=")) {
        return false;
    }
    /* The same for a host that is "user%3Apassword" with its "@host" forgotten. */
    if (contains(rest, path, "%3a")) {
        return false;
    }
    return scan_hosts(rest, path) && (*query == '\0' || scan_query(scan, query + 1));
}

/* Returns the end of the value that begins at `value`; NULL when its quote is not closed. */
static const char *value_end(const char *value)
{
    bool quoted = *value == '\'';
    const char *at = value + (quoted ? 1 : 0);
    for (;; at++) {
        if (*at == '\0') {
            return quoted ? NULL : at;
        }
        if (*at == '\\' && at[1] != '\0') {
            at++;
        } else if (quoted && *at == '\'') {
            return at + 1;
        } else if (!quoted && strchr(SPACES, *at) != NULL) {
            return at;
        }
    }
}

/* "keyword = value keyword='value' …". False when not understood. */
static bool scan_keywords(conninfo_scan *scan, const char *at)
{
    bool understood = true;
    at += strspn(at, SPACES);
    while (*at != '\0') {
        size_t len = strcspn(at, "=" SPACES);
        const char *equals = at + len + strspn(at + len, SPACES);
        if (*equals != '=' || len == 0) {
            scan->problem = "it is neither a URI that begins with postgresql:// nor a list of "
                            "keyword=value";
            return false;
        }
        const char *value = equals + 1 + strspn(equals + 1, SPACES);
        const char *end = value_end(value);
        if (end == NULL) {
            scan->problem = "a quote in it is not closed";
            return false;
        }
        understood = judge(scan, at, len, value, end) && understood;
        at = end + strspn(end, SPACES);
    }
    return understood;
}

/* Fills scan->secret and scan->problem. False when not understood: all of it may be secret. */
static bool scan_conninfo(conninfo_scan *scan)
{
    static const char *const prefixes[] = {"postgresql://", "postgres://"};
    for (size_t i = 0; i < PEN_COUNTOF(prefixes); i++) {
        size_t len = strlen(prefixes[i]);
        if (strncmp(scan->text, prefixes[i], len) == 0) {
            return scan_uri(scan, scan->text + len);
        }
    }
    bool understood = scan_keywords(scan, scan->text);
    /* A URI in a place where libpq does not look for one. */
    return understood && strstr(scan->text, "://") == NULL;
}

/* The caller frees scan->secret. */
static void scan_start(conninfo_scan *scan, const char *conninfo)
{
    size_t len = strlen(conninfo);
    scan->text = conninfo;
    scan->problem = NULL;
    scan->secret = pen_calloc(len + 1, 1);
    if (!scan_conninfo(scan)) {
        memset(scan->secret, 1, len);
    }
}

const char *pen_conninfo_problem(const char *conninfo)
{
    conninfo_scan scan;
    scan_start(&scan, conninfo);
    free(scan.secret);
    return conninfo[strspn(conninfo, SPACES)] == '\0' ? "it is empty" : scan.problem;
}

void pen_conninfo_scrub(char *conninfo)
{
    conninfo_scan scan;
    scan_start(&scan, conninfo);
    for (size_t i = 0; conninfo[i] != '\0'; i++) {
        conninfo[i] = scan.secret[i] ? '*' : conninfo[i];
    }
    free(scan.secret);
}

char *pen_conninfo_redact(const char *conninfo)
{
    conninfo_scan scan;
    scan_start(&scan, conninfo);
    size_t hidden_len = strlen(HIDDEN);
    /* Each secret run is at least one byte long and becomes hidden_len bytes. */
    char *redacted = pen_malloc(strlen(conninfo) * hidden_len + 1);
    size_t len = 0;
    for (size_t i = 0; conninfo[i] != '\0'; i++) {
        if (!scan.secret[i]) {
            redacted[len++] = conninfo[i];
        } else if (i == 0 || !scan.secret[i - 1]) {
            memcpy(redacted + len, HIDDEN, hidden_len);
            len += hidden_len;
        }
    }
    redacted[len] = '\0';
    free(scan.secret);
    return redacted;
}

bool pen_conninfo_suspect(const char *text)
{
    if (strstr(text, "://") != NULL) {
        return true;
    }
    const char *found = text;
    while ((found = strcasestr(found, "password")) != NULL) {
        found += strlen("password");
        if (found[strspn(found, SPACES)] == '=') {
            return true;
        }
    }
    return false;
}
