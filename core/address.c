#include "core/address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define HOST_SIZE 48 /* the longest IPv6 address has 45 characters */

static bool parse_port(const char *text, uint16_t *port)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 5 || text[digits] != '\0') {
        return false;
    }
    unsigned long number = strtoul(text, NULL, 10);
    *port = (uint16_t)number;
    return number <= UINT16_MAX;
}

/* Copies what stands between `begin` and `end`; false when that is too long for an address. */
static bool cut(const char *begin, const char *end, char host[HOST_SIZE])
{
    size_t len = (size_t)(end - begin);
    if (len == 0 || len >= HOST_SIZE) {
        return false;
    }
    memcpy(host, begin, len);
    host[len] = '\0';
    return true;
}

static bool parse_host(const char *host, bool bracketed, pen_address *address)
{
    address->ipv6 = bracketed;
    if (!bracketed && strcasecmp(host, "localhost") == 0) {
        host = "127.0.0.1";
    }
    return inet_pton(bracketed ? AF_INET6 : AF_INET, host, address->bytes) == 1;
}

bool pen_address_parse(const char *text, pen_address *address)
{
    char host[HOST_SIZE] = "127.0.0.1";
    bool bracketed = *text == '[';
    const char *port = text;
    *address = (pen_address){0};
    if (bracketed) {
        const char *end = strchr(text, ']');
        if (end == NULL || end[1] != ':' || !cut(text + 1, end, host)) {
            return false;
        }
        port = end + 2;
    } else if (strchr(text, ':') != NULL) {
        const char *colon = strchr(text, ':');
        if (colon > text && !cut(text, colon, host)) {
            return false;
        }
        port = colon + 1;
    }
    return parse_port(port, &address->port) && parse_host(host, bracketed, address);
}

bool pen_address_is_loopback(const pen_address *address)
{
    static const uint8_t one[16] = {[15] = 1};
    static const uint8_t mapped[13] = {[10] = 0xFF, [11] = 0xFF, [12] = 127};
    if (!address->ipv6) {
        return address->bytes[0] == 127;
    }
    return memcmp(address->bytes, one, sizeof(one)) == 0 ||
           memcmp(address->bytes, mapped, sizeof(mapped)) == 0;
}

const char *pen_address_format(const pen_address *address, char text[PEN_ADDRESS_TEXT_SIZE])
{
    char host[HOST_SIZE] = "";
    (void)inet_ntop(address->ipv6 ? AF_INET6 : AF_INET, address->bytes, host, sizeof(host));
    snprintf(text, PEN_ADDRESS_TEXT_SIZE, address->ipv6 ? "[%s]:%u" : "%s:%u", host,
             (unsigned)address->port);
    return text;
}

bool pen_address_names_loopback(const char *host)
{
    char name[HOST_SIZE];
    pen_address address = {0};
    bool bracketed = *host == '[';
    const char *end = bracketed ? strchr(host, ']') : host + strcspn(host, ":");
    if (end == NULL || !cut(host + bracketed, end, name)) {
        return false;
    }
    end += bracketed;
    uint16_t port;
    return (*end == '\0' || (*end == ':' && parse_port(end + 1, &port))) &&
           parse_host(name, bracketed, &address) && pen_address_is_loopback(&address);
}
