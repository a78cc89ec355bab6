#include "core/pgtype.h"

#include <inttypes.h>

enum {
    TYPE_BOOL = 16,
    TYPE_NAME = 19,
    TYPE_INT8 = 20,
    TYPE_INT2 = 21,
    TYPE_INT4 = 23,
    TYPE_TEXT = 25,
    TYPE_OID = 26,
    TYPE_BPCHAR = 1042,
    TYPE_VARCHAR = 1043,
    TYPE_UUID = 2950
};

/* Bytes of a value that a message shows. */
#define SHOWN_BYTES 64

/* Each type with its array, whose binary form holds the element type's OID.
 *
 * Not in it, so that a column of theirs is sent as text:
 * - the reg types: in binary they are OIDs of the source's own objects, in text names;
 * - xml: its binary form is decoded by the encoding in its own header, its text form is not;
 * - money: fixed point by lc_monetary's digits, which may differ;
 * - oidvector and int2vector: sent empty, they are not received;
 * - pg_node_tree, the statistics types, aclitem: have no binary form to receive;
 * - whatever has no fixed OID: enums, composites, extensions' types, information_schema's domains
 *   (these by their base type). */
static const struct portable {
    uint32_t type;
    uint32_t array;
} portable_types[] = {
    {TYPE_BOOL, 1000},
    {17, 1001}, /* bytea */
    {18, 1002}, /* "char" */
    {TYPE_NAME, 1003},
    {TYPE_INT8, 1016},
    {TYPE_INT2, 1005},
    {TYPE_INT4, 1007},
    {TYPE_TEXT, 1009},
    {TYPE_OID, 1028}, /* a number in text, too */
    {27, 1010},       /* tid */
    {28, 1011},       /* xid */
    {29, 1012},       /* cid */
    {114, 199},       /* json: its text */
    {600, 1017},      /* point */
    {601, 1018},      /* lseg */
    {602, 1019},      /* path */
    {603, 1020},      /* box */
    {604, 1027},      /* polygon */
    {628, 629},       /* line */
    {650, 651},       /* cidr */
    {700, 1021},      /* float4 */
    {701, 1022},      /* float8 */
    {718, 719},       /* circle */
    {774, 775},       /* macaddr8 */
    {829, 1040},      /* macaddr */
    {869, 1041},      /* inet */
    {TYPE_BPCHAR, 1014},
    {TYPE_VARCHAR, 1015},
    {1082, 1182}, /* date */
    {1083, 1183}, /* time */
    {1114, 1115}, /* timestamp */
    {1184, 1185}, /* timestamptz */
    {PEN_TYPE_INTERVAL, PEN_TYPE_INTERVAL_ARRAY},
    {1266, 1270}, /* timetz */
    {1560, 1561}, /* bit */
    {1562, 1563}, /* varbit */
    {1700, 1231}, /* numeric */
    {1790, 2201}, /* refcursor: its name */
    {TYPE_UUID, 2951},
    {2970, 2949}, /* txid_snapshot */
    {3220, 3221}, /* pg_lsn */
    {3614, 3643}, /* tsvector */
    {3615, 3645}, /* tsquery */
    {3802, 3807}, /* jsonb: a version, and its text */
    {3904, 3905}, /* int4range */
    {3906, 3907}, /* numrange */
    {3908, 3909}, /* tsrange */
    {3910, 3911}, /* tstzrange */
    {3912, 3913}, /* daterange */
    {3926, 3927}, /* int8range */
    {4072, 4073}, /* jsonpath: a version, and its text */
    {4451, 6150}, /* int4multirange */
    {4532, 6151}, /* nummultirange */
    {4533, 6152}, /* tsmultirange */
    {4534, 6153}, /* tstzmultirange */
    {4535, 6155}, /* datemultirange */
    {4536, 6157}, /* int8multirange */
    {5038, 5039}, /* pg_snapshot */
    {5069, 271},  /* xid8 */
};

bool pen_pgtype_portable(uint32_t type)
{
    for (size_t i = 0; i < PEN_COUNTOF(portable_types); i++) {
        if (portable_types[i].type == type || portable_types[i].array == type) {
            return true;
        }
    }
    return false;
}

uint32_t pen_pgtype_array(uint32_t type)
{
    for (size_t i = 0; i < PEN_COUNTOF(portable_types); i++) {
        if (portable_types[i].type == type) {
            return portable_types[i].array;
        }
    }
    return 0;
}

bool pen_pgtype_is_interval(uint32_t type)
{
    return type == PEN_TYPE_INTERVAL || type == PEN_TYPE_INTERVAL_ARRAY;
}

bool pen_pgtype_is_char(uint32_t type)
{
    return type == PEN_TYPE_CHAR || type == PEN_TYPE_CHAR_ARRAY;
}

bool pen_pgtype_widens(uint32_t source, uint32_t target)
{
    switch (source) {
    case TYPE_INT2:
        return target == TYPE_INT2 || target == TYPE_INT4 || target == TYPE_INT8;
    case TYPE_INT4:
        return target == TYPE_INT4 || target == TYPE_INT8;
    case TYPE_TEXT:
    case TYPE_VARCHAR:
        return target == TYPE_TEXT || target == TYPE_VARCHAR;
    default:
        return source == target;
    }
}

static int64_t read_integer(const pen_value *value)
{
    uint64_t bits = value->data[0] & 0x80 ? UINT64_MAX : 0;
    for (uint32_t i = 0; i < value->len; i++) {
        bits = bits << 8 | value->data[i];
    }
    return (int64_t)bits;
}

static void append_hex(const pen_value *value, bool dashes, pen_text *out)
{
    for (uint32_t i = 0; i < value->len && i < SHOWN_BYTES; i++) {
        bool dash = dashes && (i == 4 || i == 6 || i == 8 || i == 10);
        pen_text_appendf(out, "%s%02x", dash ? "-" : "", value->data[i]);
    }
}

void pen_pgtype_describe(uint32_t type, const pen_value *value, pen_text *out)
{
    bool integer = (type == TYPE_INT2 && value->len == 2) ||
                   (type == TYPE_INT4 && value->len == 4) || (type == TYPE_INT8 && value->len == 8);
    if (integer) {
        pen_text_appendf(out, "%" PRId64, read_integer(value));
    } else if (type == TYPE_OID && value->len == 4) {
        pen_text_appendf(out, "%" PRIu32, (uint32_t)read_integer(value));
    } else if (type == TYPE_BOOL && value->len == 1) {
        pen_text_append(out, value->data[0] != 0 ? "t" : "f");
    } else if (type == TYPE_UUID && value->len == 16) {
        append_hex(value, true, out);
    } else if (type == TYPE_TEXT || type == TYPE_VARCHAR || type == TYPE_BPCHAR ||
               type == TYPE_NAME) {
        pen_text_appendf(out, "%.*s", SHOWN_BYTES, (const char *)value->data);
    } else {
        pen_text_append(out, "\\x");
        append_hex(value, false, out);
    }
}
