/* Purpose: an address and a port to listen on, as an operator writes them.
 * Thread:  any.
 * Owns:    nothing.
 * Flow:    text in; the address as bytes, and back as text, out. */
#ifndef PEN_CORE_ADDRESS_H
#define PEN_CORE_ADDRESS_H

#include "core/base.h"

typedef struct pen_address {
    bool ipv6;
    uint8_t bytes[16]; /* in network order; of IPv4 the first four */
    uint16_t port;     /* 0: one that is free */
} pen_address;

/* Reads "PORT" and ":PORT", which are of the loopback address 127.0.0.1, "192.0.2.1:PORT",
 * "[2001:db8::1]:PORT" and "localhost:PORT". Names are not looked up: what they stand for may
 * change, and may be more than was meant. False when it is none of these. */
PEN_MUST_CHECK bool pen_address_parse(const char *text, pen_address *address);

/* True when only this machine reaches it. */
bool pen_address_is_loopback(const pen_address *address);

#define PEN_ADDRESS_TEXT_SIZE 64
/* Writes it into `text` as it stands in a URL ("127.0.0.1:8080", "[::1]:8080"); returns `text`. */
const char *pen_address_format(const pen_address *address, char text[PEN_ADDRESS_TEXT_SIZE]);

/* True when `host`, as a browser sends it ("localhost:8080"), can only mean this machine: an
 * address of the loopback network, or the name that no name server may give to another. Any other
 * name may be somebody's that points here (DNS rebinding). */
bool pen_address_names_loopback(const char *host);

#endif
