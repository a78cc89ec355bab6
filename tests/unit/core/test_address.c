#include "core/address.h"

#include <criterion/criterion.h>

static const char *shown(const char *text)
{
    static char out[PEN_ADDRESS_TEXT_SIZE];
    pen_address address;
    cr_assert(pen_address_parse(text, &address), "%s", text);
    return pen_address_format(&address, out);
}

Test(address, a_port_alone_is_of_this_machine)
{
    cr_expect_str_eq(shown("8080"), "127.0.0.1:8080");
    cr_expect_str_eq(shown(":8080"), "127.0.0.1:8080");
    cr_expect_str_eq(shown("0"), "127.0.0.1:0");
    cr_expect_str_eq(shown("65535"), "127.0.0.1:65535");
    cr_expect_str_eq(shown("localhost:1"), "127.0.0.1:1");
}

Test(address, others_are_named)
{
    cr_expect_str_eq(shown("192.0.2.1:80"), "192.0.2.1:80");
    cr_expect_str_eq(shown("0.0.0.0:80"), "0.0.0.0:80");
    cr_expect_str_eq(shown("[::1]:80"), "[::1]:80");
    cr_expect_str_eq(shown("[::]:80"), "[::]:80");
    cr_expect_str_eq(shown("[2001:DB8:0:0:0:0:0:1]:80"), "[2001:db8::1]:80");
    cr_expect_str_eq(shown("[1111:2222:3333:4444:5555:6666:111.122.133.144]:65535"),
                     "[1111:2222:3333:4444:5555:6666:6f7a:8590]:65535");
}

Test(address, what_is_none)
{
    static const char *const texts[] = {
        "",
        ":",
        "x",
        "65536",
        "99999",
        "100000",
        "-1",
        "+1",
        " 1",
        "1 ",
        "0x10",
        "1.2.3.4",
        "1.2.3.4:",
        "1.2.3:4",
        "a.b:80",
        "::1:80",
        "[::1]",
        "[::1]80",
        "[::1]:",
        "[::1",
        "[]:80",
        "[1.2.3.4]:80",
        "1.2.3.4:80:80",
        "[fe80::1%lo]:80",
        "256.0.0.1:80",
        "1.2.3.4:8080x",
        "01.2.3.4:80 ",
        "[1111:2222:3333:4444:5555:6666:111.122.133.144:7777:8888]:1",
    };
    for (size_t i = 0; i < PEN_COUNTOF(texts); i++) {
        pen_address address;
        cr_expect_not(pen_address_parse(texts[i], &address), "\"%s\"", texts[i]);
    }
}

static bool is_loopback(const char *text)
{
    pen_address address;
    cr_assert(pen_address_parse(text, &address), "%s", text);
    return pen_address_is_loopback(&address);
}

Test(address, who_reaches_it)
{
    cr_expect(is_loopback("80") && is_loopback("127.9.9.9:80") && is_loopback("[::1]:80"));
    cr_expect(is_loopback("[::ffff:127.0.0.1]:80"));
    cr_expect_not(is_loopback("0.0.0.0:80") || is_loopback("[::]:80") || is_loopback("[::2]:80"));
    cr_expect_not(is_loopback("128.0.0.1:80") || is_loopback("[::ffff:10.0.0.1]:80"));
    cr_expect_not(is_loopback("[7f00::1]:80"));
}

Test(address, names_for_this_machine)
{
    static const char *const good[] = {"localhost", "LocalHost:80", "127.0.0.1", "127.0.0.1:1",
                                       "[::1]",     "[::1]:80",     "127.8.8.8"};
    static const char *const bad[] = {"",
                                      "localhost.",
                                      "localhost.example",
                                      "evil.example",
                                      "127.0.0.1.evil.example",
                                      "127.0.0.1:",
                                      "127.0.0.1:x",
                                      "127.0.0.1:80:80",
                                      "[::2]",
                                      "[::1",
                                      "[::1]x",
                                      "::1",
                                      "0.0.0.0",
                                      "localhost:80@evil.example",
                                      " localhost"};
    for (size_t i = 0; i < PEN_COUNTOF(good); i++) {
        cr_expect(pen_address_names_loopback(good[i]), "\"%s\"", good[i]);
    }
    for (size_t i = 0; i < PEN_COUNTOF(bad); i++) {
        cr_expect_not(pen_address_names_loopback(bad[i]), "\"%s\"", bad[i]);
    }
}
