#include "tests/unit/core/pgoutput_rig.h"

/* A Relation message of relation `oid` whose only column is named by `form`. */
static const pen_relation *tell(rig *at, uint64_t arrival, uint32_t oid, char form)
{
    const char name[] = {form, '\0'};
    wire_relation(&at->out, oid, "s", "t", 'd', 1);
    wire_column(&at->out, 1, name, 25, -1);
    if (at->context.streamed) {
        wire_add_xid(&at->out, 9);
    }
    at->context.arrival = arrival - 1; /* decoding counts */
    cr_assert(decode(at), "%s", at->err.text);
    return at->msg.relation;
}

static void begin_replay(rig *at)
{
    at->context.streamed = true;
    pen_pgoutput_begin_replay(at->decoder);
}

static void end_replay(rig *at)
{
    at->context.streamed = false;
    pen_pgoutput_end_replay(at->decoder);
}

static char form_of(const pen_relation *rel)
{
    return rel == NULL ? '-' : (char)rel->columns[0].name.data[0];
}

static char in_force(const rig *at, uint32_t oid)
{
    return form_of(pen_pgoutput_relation(at->decoder, oid));
}

/* The version that a row is decoded with. */
static char row_is_of(rig *at, uint32_t oid)
{
    wire_row(&at->out, 'I', oid);
    wire_tuple(&at->out, 'N', 1);
    wire_null(&at->out);
    if (at->context.streamed) {
        wire_add_xid(&at->out, 9);
    }
    cr_assert(decode(at), "%s", at->err.text);
    return form_of(at->msg.change->rel);
}

enum { OID = 77, OTHER = 78 };

Test(pgoutput_replay, streamed_then_live)
{
    rig at;
    rig_init(&at);
    /* Number 1 came in a streamed block, and is decoded last. */
    const pen_relation *live = tell(&at, 2, OID, 'b');
    begin_replay(&at);
    const pen_relation *replayed = tell(&at, 1, OID, 'a');
    cr_assert_eq(form_of(replayed), 'a');
    cr_assert_eq(row_is_of(&at, OID), 'a', "its own rows are of its own version");
    end_replay(&at);
    cr_assert_eq(pen_pgoutput_relation(at.decoder, OID), live);
    cr_assert_eq(row_is_of(&at, OID), 'b');
    rig_deinit(&at);
}

Test(pgoutput_replay, live_then_streamed)
{
    rig at;
    rig_init(&at);
    tell(&at, 1, OID, 'a');
    begin_replay(&at);
    cr_assert_eq(row_is_of(&at, OID), 'a', "until told otherwise");
    const pen_relation *replayed = tell(&at, 2, OID, 'b');
    cr_assert_eq(row_is_of(&at, OID), 'b');
    end_replay(&at);
    cr_assert_eq(pen_pgoutput_relation(at.decoder, OID), replayed);
    cr_assert_eq(row_is_of(&at, OID), 'b');
    rig_deinit(&at);
}

/* The source does not tell a relation again that it told inside a transaction that committed. */
Test(pgoutput_replay, told_only_there)
{
    rig at;
    rig_init(&at);
    begin_replay(&at);
    tell(&at, 1, OID, 'a');
    tell(&at, 2, OID, 'b');
    end_replay(&at);
    cr_assert_eq(row_is_of(&at, OID), 'b');
    rig_deinit(&at);
}

Test(pgoutput_replay, the_last_of_a_replay_counts)
{
    rig at;
    rig_init(&at);
    tell(&at, 3, OID, 'o');
    begin_replay(&at);
    tell(&at, 1, OID, 'a');
    tell(&at, 2, OID, 'b');
    cr_assert_eq(row_is_of(&at, OID), 'b');
    end_replay(&at);
    cr_assert_eq(in_force(&at, OID), 'o', "both are older");
    begin_replay(&at);
    tell(&at, 2, OID, 'a');
    tell(&at, 4, OID, 'b');
    end_replay(&at);
    cr_assert_eq(in_force(&at, OID), 'b', "the last one is newer");
    rig_deinit(&at);
}

Test(pgoutput_replay, an_equal_message_renews)
{
    rig at;
    rig_init(&at);
    const pen_relation *first = tell(&at, 1, OID, 'a');
    cr_assert_eq(tell(&at, 5, OID, 'a'), first);
    begin_replay(&at);
    tell(&at, 3, OID, 'b');
    end_replay(&at);
    cr_assert_eq(pen_pgoutput_relation(at.decoder, OID), first, "said again, later than that");

    /* The same from inside of a replay. */
    begin_replay(&at);
    cr_assert_eq(tell(&at, 8, OID, 'a'), first);
    end_replay(&at);
    begin_replay(&at);
    tell(&at, 7, OID, 'b');
    end_replay(&at);
    cr_assert_eq(pen_pgoutput_relation(at.decoder, OID), first);

    /* An older one takes nothing back. */
    begin_replay(&at);
    cr_assert_eq(tell(&at, 2, OID, 'a'), first);
    end_replay(&at);
    begin_replay(&at);
    tell(&at, 6, OID, 'b');
    tell(&at, 7, OID, 'b');
    end_replay(&at);
    cr_assert_eq(pen_pgoutput_relation(at.decoder, OID), first);
    begin_replay(&at);
    tell(&at, 6, OID, 'b');
    tell(&at, 9, OID, 'b');
    end_replay(&at);
    cr_assert_eq(in_force(&at, OID), 'b', "renewed within one replay");
    rig_deinit(&at);
}

Test(pgoutput_replay, two_transactions_in_turn)
{
    rig at;
    rig_init(&at);
    tell(&at, 1, OID, 'a');
    /* Told at 2 and 3 in two streamed transactions; the second one commits first. */
    begin_replay(&at);
    tell(&at, 3, OID, 'c');
    end_replay(&at);
    begin_replay(&at);
    tell(&at, 2, OID, 'b');
    cr_assert_eq(row_is_of(&at, OID), 'b');
    end_replay(&at);
    cr_assert_eq(in_force(&at, OID), 'c');
    rig_deinit(&at);
}

/* What is not replayed leaves no trace, and a replay that tells nothing changes nothing. */
Test(pgoutput_replay, nothing_told)
{
    rig at;
    rig_init(&at);
    const pen_relation *first = tell(&at, 2, OID, 'a');
    begin_replay(&at);
    cr_assert_eq(row_is_of(&at, OID), 'a');
    end_replay(&at);
    cr_assert_eq(pen_pgoutput_relation(at.decoder, OID), first);
    /* A message that is refused within a replay is not in force either. */
    begin_replay(&at);
    wire_relation(&at.out, OID, "s", "t", 'x', 0);
    wire_add_xid(&at.out, 9);
    expect_refused(&at, "the replica identity 0x78 is none of d, n, f, i");
    cr_assert_eq(row_is_of(&at, OID), 'a');
    end_replay(&at);
    cr_assert_eq(pen_pgoutput_relation(at.decoder, OID), first);
    rig_deinit(&at);
}

Test(pgoutput_replay, relations_do_not_mix)
{
    rig at;
    rig_init(&at);
    tell(&at, 5, OID, 'a');
    tell(&at, 1, OTHER, 'a');
    begin_replay(&at);
    tell(&at, 2, OID, 'b');
    tell(&at, 3, OTHER, 'b');
    end_replay(&at);
    cr_assert_eq(in_force(&at, OID), 'a');
    cr_assert_eq(in_force(&at, OTHER), 'b');
    rig_deinit(&at);
}

/* Not how a stream is read, but what the arrival says holds there as well. */
Test(pgoutput_replay, an_older_one_outside_of_a_replay)
{
    rig at;
    rig_init(&at);
    const pen_relation *newer = tell(&at, 5, OID, 'a');
    cr_assert_eq(tell(&at, 4, OID, 'b'), newer, "the version in force is given");
    cr_assert_eq(row_is_of(&at, OID), 'a');
    rig_deinit(&at);
}

Test(pgoutput_replay, more_relations_than_there_were_slots)
{
    rig at;
    rig_init(&at);
    enum { COUNT = 1000 };
    for (uint32_t oid = 1; oid <= COUNT; oid += 2) {
        tell(&at, COUNT * 2, oid, 'a');
    }
    begin_replay(&at);
    for (uint32_t oid = 1; oid <= COUNT; oid++) {
        tell(&at, oid * 3, oid, 'b');
        cr_assert_eq(row_is_of(&at, oid), 'b');
    }
    end_replay(&at);
    for (uint32_t oid = 1; oid <= COUNT; oid++) {
        bool older = oid % 2 == 1 && oid * 3 < COUNT * 2;
        cr_assert_eq(in_force(&at, oid), older ? 'a' : 'b', "relation %u", oid);
    }
    rig_deinit(&at);
}

/* xorshift64 (Marsaglia 2003). */
static uint32_t draw(uint64_t *state, uint32_t below)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)(*state % below);
}

/* Against the rule itself: of all that was decoded, the message with the highest arrival counts. */
Test(pgoutput_replay, any_order)
{
    enum { RELATIONS = 3, OPEN = 4, TOLD = 8, ROUNDS = 20000 };
    struct told {
        uint64_t arrival;
        uint32_t oid;
        char form;
    };
    struct told open[OPEN][TOLD];
    size_t counts[OPEN] = {0};
    struct told newest[RELATIONS] = {{0}};
    uint64_t state = 20260102;
    uint64_t arrival = 0;
    rig at;
    rig_init(&at);
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t which = draw(&state, 2 * OPEN);
        struct told told = {++arrival, draw(&state, RELATIONS), (char)('a' + draw(&state, 3))};
        if (which >= OPEN) { /* live */
            tell(&at, told.arrival, told.oid, told.form);
            newest[told.oid] = told;
        } else if (counts[which] < TOLD && draw(&state, 8) > 1) { /* in a streamed block */
            open[which][counts[which]++] = told;
        } else if (draw(&state, 4) == 0) { /* Stream Abort */
            counts[which] = 0;
        } else { /* Stream Commit */
            begin_replay(&at);
            for (size_t i = 0; i < counts[which]; i++) {
                told = open[which][i];
                tell(&at, told.arrival, told.oid, told.form);
                cr_assert_eq(in_force(&at, told.oid), told.form);
                if (told.arrival > newest[told.oid].arrival) {
                    newest[told.oid] = told;
                }
            }
            end_replay(&at);
            counts[which] = 0;
        }
        for (uint32_t oid = 0; oid < RELATIONS; oid++) {
            char form = newest[oid].arrival == 0 ? '-' : newest[oid].form;
            cr_assert_eq(in_force(&at, oid), form, "round %d, relation %u", round, oid);
        }
    }
    rig_deinit(&at);
}

/* What a Relation message of a transaction in progress would change. */
static pen_relation_news news_of(rig *at, uint32_t oid, char form)
{
    const char name[] = {form, '\0'};
    uint32_t told = 0;
    wire_relation(&at->out, oid, "s", "t", 'd', 1);
    wire_column(&at->out, 1, name, 25, -1);
    wire_add_xid(&at->out, 9);
    pen_relation_news news =
        pen_pgoutput_compare_relation(at->decoder, (pen_slice){at->out.data, at->out.len}, &told);
    cr_assert_eq(told, oid);
    at->out.len = 0;
    return news;
}

Test(pgoutput_replay, a_relation_message_is_compared)
{
    rig at;
    rig_init(&at);
    cr_assert_eq((int)news_of(&at, OID, 'a'), PEN_RELATION_FIRST);
    cr_assert_eq(in_force(&at, OID), '-', "it is only compared");
    tell(&at, 1, OID, 'a');
    cr_assert_eq((int)news_of(&at, OID, 'a'), PEN_RELATION_KNOWN);
    cr_assert_eq((int)news_of(&at, OID, 'b'), PEN_RELATION_OTHER);
    cr_assert_eq((int)news_of(&at, OTHER, 'a'), PEN_RELATION_FIRST);
    tell(&at, 2, OID, 'b');
    cr_assert_eq((int)news_of(&at, OID, 'a'), PEN_RELATION_OTHER);
    cr_assert_eq(pen_pgoutput_relation_arrival(at.decoder, OID), 2);
    uint32_t oid = 1;
    const uint8_t torn[] = {'R', 0, 0, 0, 9, 0, 0};
    cr_assert_eq(
        (int)pen_pgoutput_compare_relation(at.decoder, (pen_slice){torn, sizeof(torn)}, &oid),
        PEN_RELATION_OTHER);
    cr_assert_eq(oid, 0);
    rig_deinit(&at);
}
