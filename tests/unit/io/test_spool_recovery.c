/* What a spool finds when it is opened again: torn tails, damage, gaps, files of others. */
#include "tests/unit/io/spool_rig.h"

TestSuite(spool_recovery, .init = setup, .fini = teardown, .timeout = 300);

enum { RECORDS = 40, KEPT = 8 };

static pen_spool_pos at[RECORDS];
static size_t lens[RECORDS];
static image kept[KEPT]; /* the segments as they were, by number */
static uint64_t last;    /* number of the last segment */
static pen_spool_options options;

/* Three segments with RECORDS records between them; the last holds several. */
static void make_segments(void)
{
    options = durable_options(false);
    options.segment_size = 900;
    pen_spool *spool = open_spool(&options, NULL);
    for (size_t i = 0; i < RECORDS; i++) {
        lens[i] = i * 5 % 37;
        if (i == RECORDS - 7) {
            begin_segment(spool, i);
        }
        at[i] = append(spool, i, lens[i]);
    }
    sync_all(spool);
    last = pen_spool_end(spool).segment;
    cr_assert(last >= 3 && last < KEPT);
    pen_spool_close(spool, false);
    for (uint64_t i = 1; i <= last; i++) {
        kept[i] = get_file(segment_path(i));
    }
    cr_assert_gt(kept[last].size, PEN_SPOOL_HEADER_SIZE + 3 * RECORD_OVERHEAD);
}

static void put_all_back(void)
{
    empty_dir(spool_dir);
    for (uint64_t i = 1; i <= last; i++) {
        put_file(segment_path(i), kept[i].bytes, kept[i].size);
    }
}

/* Records that lie whole before `end` in the last segment or in one before it. */
static size_t count_before(pen_spool_pos end)
{
    size_t count = 0;
    while (count < RECORDS) {
        pen_spool_pos behind = at[count];
        behind.offset += pen_spool_record_size(lens[count]);
        if (pen_spool_pos_before(end, behind)) {
            break;
        }
        count++;
    }
    return count;
}

/* The spool must open with exactly the first `count` records in it, take another one behind them,
 * and still have all of that when it is opened once more. */
static void assert_goes_on_behind(size_t count)
{
    pen_spool *spool = open_spool(&options, NULL);
    cr_assert(is_all_synced(spool));
    cr_assert_eq(pen_spool_synced_lsn(spool), PEN_LSN_NONE);
    append(spool, 1000, 33);
    sync_all(spool);
    for (int round = 0; round < 2; round++) {
        pen_spool_cursor *cursor = pen_spool_cursor_create(spool, pen_spool_first(spool));
        for (size_t i = 0; i < count; i++) {
            expect(cursor, i, lens[i]);
        }
        expect(cursor, 1000, 33);
        expect_nothing(cursor);
        pen_spool_cursor_destroy(cursor);
        pen_spool_close(spool, false);
        spool = round == 0 ? open_spool(&options, NULL) : NULL;
    }
}

static void assert_refused(const char *what)
{
    pen_spool *spool;
    bool found;
    cr_assert_not(pen_spool_open(&options, &spool, &found, &err), "%s", what);
    cr_assert_null(spool);
    cr_assert_not(found);
    cr_assert_eq(err.kind, PEN_ERROR_FATAL);
    cr_assert_not_null(strstr(err.text, what), "%s: %s", what, err.text);
}

Test(spool_recovery, the_last_segment_cut_off_at_every_byte)
{
    make_segments();
    int torn = 0;
    for (size_t size = 0; size <= kept[last].size; size++) {
        put_all_back();
        put_file(segment_path(last), kept[last].bytes, size);
        size_t count = count_before((pen_spool_pos){last, size});
        bool whole = count > 0 && at[count - 1].segment == last
                         ? at[count - 1].offset + pen_spool_record_size(lens[count - 1]) == size
                         : size == PEN_SPOOL_HEADER_SIZE;
        torn += !whole;
        if (size > 1 && size < PEN_SPOOL_HEADER_SIZE - 1) { /* all the same; each sync takes long */
            pen_spool *spool = open_spool(&options, NULL);
            cr_assert_eq(pen_spool_end(spool).segment, last - 1);
            cr_assert_eq(pen_spool_end(spool).offset, kept[last - 1].size);
            pen_spool_close(spool, false);
        } else {
            assert_goes_on_behind(count);
        }
        cr_assert_eq(logged("torn"), torn, "%zu bytes", size);
        cr_assert_eq(logged("WARN"), torn);
    }
}

Test(spool_recovery, a_flipped_bit_in_the_last_segment)
{
    make_segments();
    for (size_t byte = 0; byte < kept[last].size; byte += byte < 480 ? 16 : 1) {
        put_all_back();
        kept[last].bytes[byte] ^= (uint8_t)(1U << byte % 8);
        put_file(segment_path(last), kept[last].bytes, kept[last].size);
        if (byte < PEN_SPOOL_HEADER_SIZE) {
            assert_refused(segment_path(last)); /* there are records: it was whole once */
        } else {
            assert_goes_on_behind(count_before((pen_spool_pos){last, byte}));
        }
        kept[last].bytes[byte] ^= (uint8_t)(1U << byte % 8);
    }
}

Test(spool_recovery, damage_before_the_last_segment_is_refused_and_nothing_is_changed)
{
    make_segments();
    for (uint64_t segment = 1; segment < last; segment++) {
        for (size_t byte = 0; byte < kept[segment].size; byte += byte < 500 ? 50 : 3) {
            put_all_back();
            kept[segment].bytes[byte] ^= 0x10;
            put_file(segment_path(segment), kept[segment].bytes, kept[segment].size);
            assert_refused(segment_path(segment));
            image now = get_file(segment_path(segment));
            cr_assert_eq(now.size, kept[segment].size);
            cr_assert_eq(memcmp(now.bytes, kept[segment].bytes, now.size), 0);
            free(now.bytes);
            kept[segment].bytes[byte] ^= 0x10;
        }
        put_all_back();
        put_file(segment_path(segment), kept[segment].bytes, kept[segment].size - 1);
        assert_refused("damaged at byte");
    }
}

/* Writes that were under way together may reach the disk in any order. */
Test(spool_recovery, whole_records_behind_a_hole_count_for_nothing)
{
    make_segments();
    size_t first = count_before((pen_spool_pos){last, PEN_SPOOL_HEADER_SIZE});
    size_t hole = (size_t)at[first + 1].offset;
    memset(kept[last].bytes + hole, 0, (size_t)at[first + 2].offset - hole);
    put_file(segment_path(last), kept[last].bytes, kept[last].size);
    assert_goes_on_behind(first + 1);
    cr_assert_eq(logged("cut off"), 1);
}

/* A segment is begun only when the one before it is durable. */
Test(spool_recovery, behind_a_half_made_segment_the_one_before_must_be_whole)
{
    make_segments();
    put_file(segment_path(last), kept[last].bytes, 100);
    put_file(segment_path(last - 1), kept[last - 1].bytes, kept[last - 1].size - 1);
    assert_refused(segment_path(last - 1));
}

Test(spool_recovery, a_crash_while_the_first_segment_was_made)
{
    make_segments();
    for (size_t size = 0; size < PEN_SPOOL_HEADER_SIZE; size += 73) {
        empty_dir(spool_dir);
        put_file(segment_path(1), kept[1].bytes, size);
        bool found = true;
        pen_spool *spool = open_spool(&options, &found);
        cr_assert_not(found);
        append(spool, 1, 10);
        pen_spool_close(spool, false);
    }
}

Test(spool_recovery, a_missing_segment_is_named_and_trimmed_ones_are_not_missed)
{
    make_segments();
    unlink(segment_path(2));
    assert_refused("is missing");
    cr_assert_not_null(strstr(err.text, segment_path(2)));
    put_all_back();
    unlink(segment_path(1));
    pen_spool *spool = open_spool(&options, NULL);
    cr_assert_eq(pen_spool_first(spool).segment, 2U);
    pen_spool_close(spool, false);
}

Test(spool_recovery, the_spool_of_another_stream_is_refused)
{
    make_segments();
    const pen_spool_header right = options.header;
    options.header.system_identifier++;
    assert_refused("system identifier");
    options.header = right;
    strcpy(options.header.database, "shops");
    assert_refused("database");
    options.header = right;
    strcpy(options.header.slot, "penstock");
    assert_refused("slot");
    options.header = right;
    strcpy(options.header.encoding, "LATIN1");
    assert_refused("encoding");
    options.header = right;
    options.header.kind = PEN_SPOOL_STREAMED;
    assert_refused("another kind");
    options.header = right;
    options.header.timeline = 7;
    options.header.server_version = 170000;
    options.header.protocol = 4;
    options.header.binary = true;
    assert_goes_on_behind(RECORDS);
}

Test(spool_recovery, a_segment_in_the_wrong_place_or_of_an_earlier_spool_is_refused)
{
    make_segments();
    put_file(segment_path(last + 1), kept[last].bytes, kept[last].size);
    assert_refused("belongs elsewhere");
    /* The same stream's spool, made anew: the same in all but the id. */
    empty_dir(spool_dir);
    pen_spool *spool = open_spool(&options, NULL);
    append(spool, 0, 10);
    pen_spool_close(spool, false);
    put_file(segment_path(2), kept[2].bytes, kept[2].size);
    assert_refused("belongs elsewhere");
}

Test(spool_recovery, files_of_other_names_are_left_alone)
{
    make_segments();
    static const char *const names[] = {
        "streamed-0000000000000001.spool", "stream-0000000000000001.spool.bak",
        "stream-000000000000000A.spool",   "stream-0000000000000000.spool",
        "stream-00000000000000009.spool",  "stream-           00009.spool",
        "stream--000000000000001.spool"};
    char path[400];
    for (size_t i = 0; i < PEN_COUNTOF(names); i++) {
        snprintf(path, sizeof(path), "%s/%s", spool_dir, names[i]);
        put_file(path, (const uint8_t *)"x", 1);
    }
    assert_goes_on_behind(RECORDS);
    options.durable = false;
    pen_spool_close(open_spool(&options, NULL), true);
    cr_assert_neq(access(segment_path(1), F_OK), 0, "one that is not durable begins empty");
    for (size_t i = 0; i < PEN_COUNTOF(names); i++) {
        snprintf(path, sizeof(path), "%s/%s", spool_dir, names[i]);
        cr_assert_eq(access(path, F_OK), 0, "%s", names[i]);
    }
}

Test(spool_recovery, what_is_no_file_or_cannot_be_made_is_refused)
{
    make_segments();
    unlink(segment_path(last));
    mkdir(segment_path(last), 0700);
    assert_refused(segment_path(last));
    rmdir(segment_path(last));
    options.dir = "/nowhere/at/all";
    assert_refused("/nowhere/at/all");
    options.dir = log_path;
    assert_refused(log_path);
}

/* ---- reading later ---- */

Test(spool_recovery, every_record_is_checked_again_when_it_is_read)
{
    make_segments();
    pen_spool *spool = open_spool(&options, NULL);
    for (size_t i = 0; i < RECORDS; i++) {
        const char *path = segment_path(at[i].segment);
        int fd = open(path, O_RDWR);
        size_t size = pen_spool_record_size(lens[i]);
        for (size_t byte = 0; byte < size; byte++) {
            uint8_t right;
            cr_assert_eq(pread(fd, &right, 1, (off_t)(at[i].offset + byte)), 1);
            uint8_t wrong = right ^ 0x41;
            cr_assert_eq(pwrite(fd, &wrong, 1, (off_t)(at[i].offset + byte)), 1);
            pen_spool_cursor *cursor = pen_spool_cursor_create(spool, at[i]);
            pen_spool_record record;
            pen_spool_pos where;
            cr_assert_eq(pen_spool_cursor_next(cursor, &record, &where, &err),
                         PEN_SPOOL_READ_FAILED);
            cr_assert_eq(err.kind, PEN_ERROR_FATAL);
            cr_assert_not_null(strstr(err.text, path), "%s", err.text);
            cr_assert_eq(pwrite(fd, &right, 1, (off_t)(at[i].offset + byte)), 1);
            expect(cursor, i, lens[i]);
            pen_spool_cursor_destroy(cursor);
        }
        close(fd);
    }
    pen_spool_close(spool, false);
}

Test(spool_recovery, a_file_that_became_shorter_or_went_away_is_told)
{
    make_segments();
    pen_spool *spool = open_spool(&options, NULL);
    pen_spool_cursor *cursor = pen_spool_cursor_create(spool, at[0]);
    pen_spool_record record;
    pen_spool_pos where;
    cr_assert_eq(truncate(segment_path(1), (off_t)at[1].offset - 1), 0);
    cr_assert_eq(pen_spool_cursor_next(cursor, &record, &where, &err), PEN_SPOOL_READ_FAILED);
    cr_assert_not_null(strstr(err.text, "damaged at byte 512"), "%s", err.text);
    pen_spool_cursor_seek(cursor, at[RECORDS - 1]);
    unlink(segment_path(1));
    expect(cursor, RECORDS - 1, lens[RECORDS - 1]);
    pen_spool_cursor_seek(cursor, at[0]);
    cr_assert_eq(pen_spool_cursor_next(cursor, &record, &where, &err), PEN_SPOOL_READ_FAILED);
    cr_assert_eq(err.sys_errno, ENOENT);
    cr_assert_not_null(strstr(err.text, segment_path(1)));
    pen_spool_cursor_destroy(cursor);
    pen_spool_close(spool, false);
}

static bool has_open(ino_t inode)
{
    struct stat status;
    for (int fd = 3; fd < 256; fd++) {
        if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_ino == inode) {
            return true;
        }
    }
    return false;
}

/* What a cursor has read keeps no deleted file on the disk. */
Test(spool_recovery, trimmed_segments_give_their_room_back)
{
    make_segments();
    pen_spool *spool = open_spool(&options, NULL);
    pen_spool_cursor *cursor = pen_spool_cursor_create(spool, at[0]);
    for (size_t i = 0; at[i].segment == 1; i++) {
        expect(cursor, i, lens[i]);
    }
    cr_assert_eq(pen_spool_cursor_pos(cursor).segment, 2U);
    uint64_t size = pen_spool_size(spool);
    struct stat status;
    cr_assert_eq(stat(segment_path(1), &status), 0);
    ino_t segment_inode = status.st_ino;
    cr_assert(pen_spool_trim(spool, 2, &err));
    cr_assert_eq(pen_spool_size(spool), size - kept[1].size);
    cr_assert_not(has_open(segment_inode), "a deleted file that is open takes its room");
    cr_assert(pen_spool_trim(spool, 1, &err), "nothing to do");
    cr_assert_eq(pen_spool_first(spool).segment, 2U);
    pen_spool_cursor_seek(cursor, pen_spool_end(spool));
    cr_assert(pen_spool_trim(spool, last + 100, &err));
    cr_assert_eq(pen_spool_first(spool).segment, last, "the one that is written stays");
    pen_spool_cursor_destroy(cursor);
    pen_spool_close(spool, false);
}
