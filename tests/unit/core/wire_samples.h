/* Purpose: a sample of each pgoutput message in each of its forms, and the tables that they are of.
 * Thread:  any; a wire belongs to one caller.
 * Owns:    nothing; writes into the caller's wire.
 * Flow:    a number in, one message's bytes out, for the decoder's tests and the fuzzer's corpus.
 */
#ifndef PEN_TESTS_WIRE_SAMPLES_H
#define PEN_TESTS_WIRE_SAMPLES_H

#include "tests/unit/core/wire.h"

/* The table of the samples: shop.item (id int8 key, name text, price numeric(10,2)). */
#define WIRE_ITEM 16385U

/* A second one without columns: pg_catalog.empty. */
#define WIRE_EMPTY 16386U

static inline void wire_item_relation(wire *out)
{
    wire_relation(out, WIRE_ITEM, "shop", "item", 'd', 3);
    wire_column(out, 1, "id", 20, -1);
    wire_column(out, 0, "name", 25, -1);
    wire_column(out, 0, "price", 1700, 655366);
}

static inline void wire_empty_relation(wire *out)
{
    wire_relation(out, WIRE_EMPTY, "", "empty", 'n', 0);
}

static inline void wire_item_insert(wire *out, const char *id, const char *name)
{
    wire_row(out, 'I', WIRE_ITEM);
    wire_tuple(out, 'N', 3);
    wire_text(out, id);
    wire_text(out, name);
    wire_null(out);
}

/* Each message in each of its forms, in an order that a source could send: sample `at`, or false
 * behind the last. */
static inline bool wire_sample(size_t at, wire *out)
{
    out->len = 0;
    switch (at) {
    case 0:
        wire_begin(out, 0x16B374D848, 812345678901234, 4242);
        return true;
    case 1: /* Origin */
        wire_u8(out, 'O');
        wire_u64(out, 0x0123456789ABCDEF);
        wire_string(out, "upstream");
        return true;
    case 2: /* Type */
        wire_u8(out, 'Y');
        wire_u32(out, 16400);
        wire_string(out, "shop");
        wire_string(out, "mood");
        return true;
    case 3:
        wire_item_relation(out);
        return true;
    case 4:
        wire_empty_relation(out);
        return true;
    case 5: /* text, empty text, NULL */
        wire_item_insert(out, "17", "");
        return true;
    case 6: /* binary, a NUL byte inside */
        wire_row(out, 'I', WIRE_ITEM);
        wire_tuple(out, 'N', 3);
        wire_binary(out, "\0\0\0\0\0\0\0\x11", 8);
        wire_null(out);
        wire_binary(out, "\0\1\2", 3);
        return true;
    case 7: /* no columns */
        wire_row(out, 'I', WIRE_EMPTY);
        wire_tuple(out, 'N', 0);
        return true;
    case 8: /* Update, identity unchanged */
        wire_row(out, 'U', WIRE_ITEM);
        wire_tuple(out, 'N', 3);
        wire_text(out, "17");
        wire_unchanged(out);
        wire_text(out, "9.99");
        return true;
    case 9: /* Update of a key */
        wire_row(out, 'U', WIRE_ITEM);
        wire_tuple(out, 'K', 3);
        wire_text(out, "17");
        wire_null(out);
        wire_null(out);
        wire_tuple(out, 'N', 3);
        wire_text(out, "18");
        wire_text(out, "hammer");
        wire_text(out, "9.99");
        return true;
    case 10: /* Update with the full old row, whose last value ends where the new tuple begins */
        wire_row(out, 'U', WIRE_ITEM);
        wire_tuple(out, 'O', 3);
        wire_text(out, "18");
        wire_text(out, "hammer");
        wire_text(out, "9.99");
        wire_tuple(out, 'N', 3);
        wire_text(out, "18");
        wire_unchanged(out);
        wire_null(out);
        return true;
    case 11:
        wire_row(out, 'D', WIRE_ITEM);
        wire_tuple(out, 'K', 3);
        wire_text(out, "18");
        wire_null(out);
        wire_null(out);
        return true;
    case 12:
        wire_row(out, 'D', WIRE_ITEM);
        wire_tuple(out, 'O', 3);
        wire_text(out, "19");
        wire_text(out, "nail");
        wire_text(out, "0.01");
        return true;
    case 13: /* Truncate of two, CASCADE and RESTART IDENTITY */
        wire_u8(out, 'T');
        wire_u32(out, 2);
        wire_u8(out, 3);
        wire_u32(out, WIRE_ITEM);
        wire_u32(out, WIRE_EMPTY);
        return true;
    case 14: /* transactional Message */
        wire_u8(out, 'M');
        wire_u8(out, 1);
        wire_u64(out, 0x16B374D800);
        wire_string(out, "penstock");
        wire_u32(out, 4);
        wire_bytes(out, "mark", 4);
        return true;
    case 15: /* and one that is not, empty */
        wire_u8(out, 'M');
        wire_u8(out, 0);
        wire_u64(out, 0x16B374D900);
        wire_string(out, "");
        wire_u32(out, 0);
        return true;
    case 16:
        wire_commit(out, 0x16B374D848, 0x16B374D878, 812345678901234);
        return true;
    default:
        return false;
    }
}

/* What a decoder must be told to read a form. */
typedef struct wire_form {
    size_t sample; /* that it is made of, or WIRE_SAMPLES and up */
    bool streamed;
    bool abort_has_lsn;
} wire_form;

enum { WIRE_SAMPLES = 17, WIRE_FORMS = 2 * WIRE_SAMPLES + 12 };

/* The messages that frame streamed blocks, and those of two-phase decoding. */
static inline void wire_frame(size_t at, wire *out, wire_form *form)
{
    const char two_phase[] = "bPKrp";
    switch (at) {
    case 0:
    case 1:
        wire_stream_start(out, 4243, at == 0);
        return;
    case 2:
        wire_stream_stop(out);
        return;
    case 3: /* one subtransaction, and all */
    case 4:
        wire_stream_abort(out, 4243, at == 3 ? 4245 : 4243);
        return;
    case 5: /* streaming 'parallel' */
        wire_stream_abort(out, 4243, 4245);
        wire_u64(out, 0x16B374DA00);
        wire_u64(out, 812345678901235);
        form->abort_has_lsn = true;
        return;
    case 6:
        wire_stream_commit(out, 4243, 0x16B374DAF0, 0x16B374DB00, 812345678901236);
        return;
    default:
        if (at < 7 + sizeof(two_phase) - 1) {
            wire_prepared(out, two_phase[at - 7], 0x16B374DB00, 0x16B374DB30, 812345678901236,
                          812345678901237, 4246, "a gid");
        }
    }
}

/* Each sample, each of them as it comes inside a streamed block, and the messages that are in no
 * sample: form `at`, of WIRE_FORMS. */
static inline wire_form wire_form_of(size_t at, wire *out)
{
    wire_form form = {.sample = at, .streamed = at >= WIRE_SAMPLES && at < 2 * WIRE_SAMPLES};
    out->len = 0;
    if (at < 2 * WIRE_SAMPLES) {
        form.sample = at % WIRE_SAMPLES;
        (void)wire_sample(form.sample, out);
        if (form.streamed && strchr("RYIUDTM", out->data[0]) != NULL) {
            wire_add_xid(out, 4244);
        }
    } else {
        wire_frame(at - 2 * WIRE_SAMPLES, out, &form);
    }
    return form;
}

#endif
