#include "io/spool.h"

#include "core/kill_point.h"
#include "io/spool_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A mark is durable when all that was appended before it was noted is in the files, and a sync that
 * began after the last of those writes had ended has succeeded. So a barrier first waits for the
 * writes, each seen to end here, and only then asks for the sync. There is one file to sync: before
 * a segment is begun, the one before it is written to its end and synced.
 *
 * Writes of different buffers are under way at once and may end in any order. A crash can therefore
 * leave a hole with whole records behind it; they count for nothing, because no barrier that covers
 * them has passed, and recovery cuts at the hole. */

#define TRY_AGAIN_US 1000000

static bool is_complete(const pen_spool_chunk *chunk)
{
    return chunk->closed && chunk->written == chunk->filled;
}

static bool is_own(const pen_spool_chunk *chunk)
{
    return chunk->request.registered == 0;
}

/* Whether take_fixed has one to give. */
static bool has_buffer(const pen_spool *spool)
{
    const pen_spool_chunk *chunk = spool->head;
    while (chunk != NULL && is_complete(chunk) && is_own(chunk)) {
        chunk = chunk->next;
    }
    return spool->free != NULL || (chunk != NULL && is_complete(chunk));
}

/* ---- opening and closing ---- */

static void make_buffers(pen_spool *spool, const pen_spool_options *options)
{
    spool->buffer_size = options->buffer_size;
    spool->buffer_count = options->buffer_count;
    spool->buffers = pen_alloc_lines(options->buffer_size * options->buffer_count);
    spool->fixed = pen_calloc(options->buffer_count, sizeof(*spool->fixed));
    for (unsigned i = options->buffer_count; i-- > 0;) {
        spool->fixed[i].data = spool->buffers + i * options->buffer_size;
        spool->fixed[i].request.registered = i + 1;
        spool->fixed[i].next = spool->free;
        spool->free = &spool->fixed[i];
    }
    pen_disk_register(spool->disk, spool->buffers, options->buffer_count, options->buffer_size);
}

bool pen_spool_open(const pen_spool_options *options, pen_spool **spool, bool *found,
                    pen_error *err)
{
    PEN_ASSERT(options->buffer_count >= 2 && options->segment_size > PEN_SPOOL_HEADER_SIZE);
    *spool = NULL;
    *found = false;
    pen_spool *made = pen_calloc(1, sizeof(*made));
    made->segment_size = options->segment_size;
    /* One more than the buffers for the sync, and some for chunks with memory of their own. */
    if (!pen_spool_segments_open(&made->segments, options, &made->fd, err) ||
        !pen_disk_start(options->name, options->buffer_count + 4, options->use_uring,
                        options->parker, &made->disk, err)) {
        pen_spool_close(made, false);
        return false;
    }
    make_buffers(made, options);
    *found = made->segments.count > 0;
    made->synced = pen_spool_end(made); /* recovery has seen to that */
    *spool = made;
    return true;
}

void pen_spool_close(pen_spool *spool, bool remove)
{
    if (spool == NULL) {
        return;
    }
    PEN_ASSERT(spool->cursors == NULL);
    pen_disk_stop(spool->disk);
    if (spool->fd >= 0) {
        close(spool->fd);
    }
    if (remove) {
        pen_spool_segments_remove(&spool->segments);
    }
    pen_spool_segments_close(&spool->segments);
    for (pen_spool_chunk *chunk = spool->head; chunk != NULL;) {
        pen_spool_chunk *next = chunk->next;
        if (is_own(chunk)) {
            free(chunk->data);
            free(chunk);
        }
        chunk = next;
    }
    free(spool->fixed);
    free(spool->buffers);
    free(spool);
}

/* ---- what it says of itself ---- */

const char *pen_spool_method(const pen_spool *spool)
{
    return pen_disk_method(spool->disk);
}

pen_spool_pos pen_spool_first(const pen_spool *spool)
{
    const pen_spool_segments *segments = &spool->segments;
    return (pen_spool_pos){segments->count == 0 ? 1 : segments->list[0].header.segment,
                           PEN_SPOOL_HEADER_SIZE};
}

pen_spool_pos pen_spool_end(const pen_spool *spool)
{
    const pen_spool_segment *last = pen_spool_segments_last(&spool->segments);
    return last == NULL ? pen_spool_first(spool)
                        : (pen_spool_pos){last->header.segment, last->size};
}

pen_lsn pen_spool_start_lsn(const pen_spool *spool)
{
    return spool->segments.count == 0 ? PEN_LSN_NONE : spool->segments.list[0].header.start_lsn;
}

const pen_spool_header *pen_spool_last_header(const pen_spool *spool)
{
    const pen_spool_segment *last = pen_spool_segments_last(&spool->segments);
    return last == NULL ? NULL : &last->header;
}

uint64_t pen_spool_size(const pen_spool *spool)
{
    uint64_t size = 0;
    for (size_t i = 0; i < spool->segments.count; i++) {
        size += spool->segments.list[i].size;
    }
    return size;
}

pen_lsn pen_spool_synced_lsn(const pen_spool *spool)
{
    return spool->synced_lsn;
}

pen_spool_pos pen_spool_synced(const pen_spool *spool)
{
    return spool->synced;
}

bool pen_spool_disk_is_full(const pen_spool *spool)
{
    return spool->refused > 0 || spool->none_made;
}

bool pen_spool_has_room(const pen_spool *spool)
{
    if (spool->refused > 0) {
        return false;
    }
    if (spool->none_made) {
        return pen_now_us() >= spool->next_try_us; /* for another pen_spool_begin_segment */
    }
    const pen_spool_chunk *chunk = spool->own_count == 0 ? NULL : spool->head;
    for (; chunk != NULL; chunk = chunk->next) {
        if (is_own(chunk) && chunk->written < chunk->filled) {
            return false;
        }
    }
    const pen_spool_chunk *tail = spool->tail;
    return (tail != NULL && !tail->closed && !is_own(tail)) || has_buffer(spool);
}

/* ---- handing bytes to the disk ---- */

/* Keeps the first failure and gives it again at every call. Returns false always. */
static bool break_spool(pen_spool *spool, const pen_error *err)
{
    if (!spool->broken) {
        spool->broken = true;
        spool->failure = *err;
    }
    return false;
}

/* Hands what is not written of the chunk's first `until` bytes to the disk, if it takes it. */
static bool hand_over(pen_spool *spool, pen_spool_chunk *chunk, size_t until)
{
    chunk->request = (pen_disk_request){.op = PEN_DISK_WRITE,
                                        .fd = spool->fd,
                                        .data = chunk->data + chunk->written,
                                        .size = until - chunk->written,
                                        .offset = chunk->pos.offset + chunk->written,
                                        .registered = chunk->request.registered};
    if (!pen_disk_queue(spool->disk, &chunk->request)) {
        return false;
    }
    chunk->handed = until;
    chunk->in_flight = true;
    spool->under_way++;
    return true;
}

/* Whether bytes of it are to be written now that were not handed over before: it is full, or a
 * barrier waits for them, or it keeps memory that it should give back. */
static bool is_due(const pen_spool *spool, const pen_spool_chunk *chunk)
{
    if (chunk->in_flight || chunk->refused || chunk->handed == chunk->filled) {
        return false;
    }
    pen_spool_pos next = {chunk->pos.segment, chunk->pos.offset + chunk->handed};
    return chunk->closed || is_own(chunk) ||
           (spool->barrier.state == PEN_BARRIER_WRITING &&
            pen_spool_pos_before(next, spool->barrier.end));
}

static bool is_written(const pen_spool *spool, pen_spool_pos end)
{
    for (const pen_spool_chunk *chunk = spool->head; chunk != NULL; chunk = chunk->next) {
        pen_spool_pos next = {chunk->pos.segment, chunk->pos.offset + chunk->written};
        if (chunk->written < chunk->filled && pen_spool_pos_before(next, end)) {
            return false;
        }
    }
    return true;
}

/* Asks for the sync of a barrier whose writes have all ended. */
static void sync_if_written(pen_spool *spool)
{
    pen_spool_barrier *barrier = &spool->barrier;
    if (barrier->state != PEN_BARRIER_WRITING || !is_written(spool, barrier->end)) {
        return;
    }
    PEN_KILL_POINT("spool-sync-before");
    barrier->request = (pen_disk_request){.op = PEN_DISK_SYNC, .fd = spool->fd};
    if (pen_disk_queue(spool->disk, &barrier->request)) {
        barrier->state = PEN_BARRIER_SYNCING;
        spool->under_way++;
    }
}

/* Hands over all that is due. */
static void pump(pen_spool *spool)
{
    if (spool->broken) {
        return;
    }
    sync_if_written(spool); /* first: it must find a place */
    for (pen_spool_chunk *chunk = spool->head; chunk != NULL && spool->refused == 0;
         chunk = chunk->next) {
        if (is_due(spool, chunk) && !hand_over(spool, chunk, chunk->filled)) {
            break; /* at a later poll, when something has ended */
        }
    }
    pen_error err;
    if (!pen_disk_submit(spool->disk, &err)) {
        pen_error_context(&err, "spool in \"%s\"", spool->segments.dir);
        break_spool(spool, &err);
    }
}

/* Tries the writes again that found the disk full. */
static void try_again(pen_spool *spool)
{
    if (spool->refused == 0 || pen_now_us() < spool->next_try_us) {
        return;
    }
    for (pen_spool_chunk *chunk = spool->head; chunk != NULL; chunk = chunk->next) {
        if (chunk->refused && !chunk->in_flight && !hand_over(spool, chunk, chunk->handed)) {
            break;
        }
    }
}

/* ---- what the disk has done ---- */

static bool take_in_write(pen_spool *spool, pen_spool_chunk *chunk, pen_error *err)
{
    int sys_errno = chunk->request.sys_errno;
    chunk->in_flight = false;
    chunk->written += chunk->request.written;
    spool->refused -= chunk->refused;
    chunk->refused = pen_spool_is_no_space(sys_errno);
    spool->refused += chunk->refused;
    if (chunk->refused) {
        spool->next_try_us = pen_now_us() + TRY_AGAIN_US;
        return true;
    }
    return sys_errno == 0 ||
           pen_error_set_errno(err, PEN_ERROR_FATAL, sys_errno,
                               "cannot write the spool segment \"%s\"; see to the disk and start "
                               "again",
                               pen_spool_segments_path(&spool->segments, chunk->pos.segment));
}

static void begin_barrier(pen_spool *spool)
{
    pen_spool_barrier *barrier = &spool->barrier;
    pen_spool_pos end = pen_spool_end(spool);
    barrier->again = false;
    if (!pen_spool_pos_before(spool->synced, end)) {
        spool->synced_lsn = spool->mark;
        return;
    }
    barrier->end = end;
    barrier->mark = spool->mark;
    barrier->state = PEN_BARRIER_WRITING;
}

static bool take_in_sync(pen_spool *spool, pen_error *err)
{
    pen_spool_barrier *barrier = &spool->barrier;
    if (barrier->request.sys_errno != 0) {
        return pen_error_set_errno(
            err, PEN_ERROR_FATAL, barrier->request.sys_errno,
            "cannot make the spool segment \"%s\" durable; what is on disk is not known any more: "
            "see to the disk and start again",
            pen_spool_segments_path(&spool->segments, barrier->end.segment));
    }
    PEN_KILL_POINT("spool-sync-after");
    spool->synced = barrier->end;
    spool->synced_lsn = barrier->mark;
    barrier->state = PEN_BARRIER_NONE;
    if (barrier->again) {
        begin_barrier(spool);
    }
    return true;
}

static bool take_in(pen_spool *spool, pen_disk_request *done, pen_error *err)
{
    spool->under_way--;
    if (done == &spool->barrier.request) {
        return take_in_sync(spool, err);
    }
    return take_in_write(
        spool, (pen_spool_chunk *)((char *)done - offsetof(pen_spool_chunk, request)), err);
}

/* Takes in one finished request; with `wait` there must be one under way. *more is false when none
 * has finished. */
static bool take_in_next(pen_spool *spool, bool wait, bool *more, pen_error *err)
{
    pen_disk_request *done = NULL;
    bool good =
        wait ? pen_disk_wait(spool->disk, &done, err) : pen_disk_poll(spool->disk, &done, err);
    *more = done != NULL;
    if (!good) {
        pen_error_context(err, "spool in \"%s\"", spool->segments.dir);
    }
    return (good && (done == NULL || take_in(spool, done, err))) || break_spool(spool, err);
}

static bool give_failure(const pen_spool *spool, pen_error *err)
{
    *err = spool->failure;
    return false;
}

bool pen_spool_poll(pen_spool *spool, pen_error *err)
{
    for (bool more = true; more && !spool->broken;) {
        if (!take_in_next(spool, false, &more, err)) {
            return false;
        }
    }
    if (!spool->broken) {
        try_again(spool);
        pump(spool);
    }
    return !spool->broken || give_failure(spool, err);
}

/* ---- appending ---- */

/* Takes the oldest chunk off the list, which must be complete. */
static void drop_head(pen_spool *spool)
{
    pen_spool_chunk *chunk = spool->head;
    PEN_ASSERT(is_complete(chunk));
    spool->head = chunk->next;
    if (spool->head == NULL) {
        spool->tail = NULL;
    }
    spool->generation++;
    if (is_own(chunk)) {
        spool->own_count--;
        free(chunk->data);
        free(chunk);
        return;
    }
    chunk->next = spool->free;
    spool->free = chunk;
}

/* Gives back the memory of chunks that have their own, once it is written. */
static void release_own(pen_spool *spool)
{
    size_t drop = 0;
    size_t at = 0;
    for (const pen_spool_chunk *chunk = spool->head; chunk != NULL && is_complete(chunk);
         chunk = chunk->next) {
        at++;
        drop = is_own(chunk) ? at : drop;
    }
    for (; drop > 0; drop--) {
        drop_head(spool);
    }
}

static pen_spool_chunk *make_own(pen_spool *spool, size_t size)
{
    pen_spool_chunk *chunk = pen_calloc(1, sizeof(*chunk));
    chunk->capacity = size > spool->buffer_size ? size : spool->buffer_size;
    chunk->data = pen_malloc(chunk->capacity);
    spool->own_count++;
    return chunk;
}

/* A free buffer's chunk, or NULL. A written buffer is kept to be read from until it is needed. */
static pen_spool_chunk *take_fixed(pen_spool *spool)
{
    while (spool->free == NULL && spool->head != NULL && is_complete(spool->head)) {
        drop_head(spool);
    }
    pen_spool_chunk *chunk = spool->free;
    if (chunk != NULL) {
        spool->free = chunk->next;
        *chunk = (pen_spool_chunk){.data = chunk->data,
                                   .capacity = spool->buffer_size,
                                   .request.registered = chunk->request.registered};
    }
    return chunk;
}

static void close_tail(pen_spool *spool)
{
    if (spool->tail != NULL) {
        spool->tail->closed = true;
    }
}

/* Begins a chunk with room for `size` bytes at the log's end. */
static void begin_chunk(pen_spool *spool, size_t size)
{
    close_tail(spool);
    pump(spool);
    pen_spool_chunk *chunk = size <= spool->buffer_size ? take_fixed(spool) : NULL;
    if (chunk == NULL) {
        chunk = make_own(spool, size);
    }
    chunk->pos = pen_spool_end(spool);
    if (spool->tail == NULL) {
        spool->head = chunk;
    } else {
        spool->tail->next = chunk;
    }
    spool->tail = chunk;
}

pen_spool_pos pen_spool_append(pen_spool *spool, const pen_spool_record *record)
{
    pen_spool_segment *last = pen_spool_segments_last(&spool->segments);
    PEN_ASSERT(last != NULL);
    size_t size = pen_spool_record_size(record->payload.len);
    if (spool->own_count > 0) {
        release_own(spool);
    }
    if (spool->tail == NULL || spool->tail->closed ||
        spool->tail->capacity - spool->tail->filled < size ||
        (is_own(spool->tail) && has_buffer(spool))) {
        begin_chunk(spool, size);
    }
    pen_spool_chunk *chunk = spool->tail;
    pen_spool_pos pos = {last->header.segment, last->size};
    pen_spool_record_encode(&last->header, pos.offset, record, chunk->data + chunk->filled);
    chunk->filled += size;
    last->size += size;
    if (chunk->filled == chunk->capacity || is_own(chunk)) {
        chunk->closed = chunk->filled == chunk->capacity;
        pump(spool);
    }
    return pos;
}

void pen_spool_mark(pen_spool *spool, pen_lsn lsn)
{
    if (lsn > spool->mark) {
        spool->mark = lsn;
    }
}

void pen_spool_sync(pen_spool *spool)
{
    if (!spool->segments.durable || spool->broken) {
        return;
    }
    if (spool->barrier.state != PEN_BARRIER_NONE) {
        spool->barrier.again = true;
        return;
    }
    begin_barrier(spool);
    if (spool->barrier.state != PEN_BARRIER_NONE) {
        pump(spool);
    }
}

/* ---- segments ---- */

bool pen_spool_wants_segment(const pen_spool *spool)
{
    const pen_spool_segment *last = pen_spool_segments_last(&spool->segments);
    if (last == NULL || last->size >= spool->segment_size) {
        return true;
    }
    /* A segment's header holds for all of it. */
    const pen_spool_header *next = &spool->segments.header;
    return last->header.timeline != next->timeline ||
           last->header.server_version != next->server_version ||
           last->header.protocol != next->protocol || last->header.binary != next->binary;
}

void pen_spool_describe(pen_spool *spool, uint32_t server_version, uint16_t protocol)
{
    spool->segments.header.server_version = server_version;
    spool->segments.header.protocol = protocol;
}

/* Waits until everything is written and, where the spool is durable, synced. *done is false when
 * the disk is too full for that. */
static bool finish_segment(pen_spool *spool, bool *done, pen_error *err)
{
    close_tail(spool);
    for (;;) {
        pen_spool_pos end = pen_spool_end(spool);
        bool synced = !spool->segments.durable || !pen_spool_pos_before(spool->synced, end);
        if (!synced && spool->barrier.state == PEN_BARRIER_NONE) {
            begin_barrier(spool);
        }
        if (!pen_spool_poll(spool, err)) {
            return false;
        }
        *done = spool->under_way == 0 && is_written(spool, end) &&
                (!spool->segments.durable || !pen_spool_pos_before(spool->synced, end));
        if (*done || spool->refused > 0) {
            return true;
        }
        bool more;
        if (spool->under_way > 0 && !take_in_next(spool, true, &more, err)) {
            return false;
        }
    }
}

bool pen_spool_begin_segment(pen_spool *spool, pen_lsn start_lsn, bool *made, pen_error *err)
{
    *made = false;
    if (spool->broken) {
        return give_failure(spool, err);
    }
    if (spool->none_made && pen_now_us() < spool->next_try_us) {
        return true;
    }
    bool done = true;
    if (spool->segments.count > 0 && !finish_segment(spool, &done, err)) {
        return false;
    }
    if (!done) {
        return true;
    }
    int fd = -1;
    spool->segments.header.received_lsn = spool->mark > start_lsn ? spool->mark : start_lsn;
    if (!pen_spool_segments_make(&spool->segments, start_lsn, &fd, made, err)) {
        return break_spool(spool, err);
    }
    spool->none_made = !*made;
    if (!*made) {
        spool->next_try_us = pen_now_us() + TRY_AGAIN_US;
        return true;
    }
    if (spool->fd >= 0) {
        close(spool->fd);
    }
    spool->fd = fd;
    spool->synced = pen_spool_end(spool);
    pen_spool_cursors_settle(spool);
    return true;
}

bool pen_spool_truncate(pen_spool *spool, pen_spool_pos at, pen_error *err)
{
    pen_spool_segment *last = pen_spool_segments_last(&spool->segments);
    PEN_ASSERT(last != NULL && last->header.segment == at.segment && at.offset <= last->size &&
               at.offset >= PEN_SPOOL_HEADER_SIZE && spool->head == NULL);
    /* Durable, or after a crash old records could stand behind new ones. */
    if (ftruncate(spool->fd, (off_t)at.offset) != 0 || fsync(spool->fd) != 0) {
        return pen_error_set_errno(err, PEN_ERROR_FATAL, errno,
                                   "cannot cut the spool segment \"%s\"; see to the disk",
                                   pen_spool_segments_path(&spool->segments, at.segment));
    }
    last->size = at.offset;
    spool->synced = at;
    return true;
}

bool pen_spool_trim(pen_spool *spool, uint64_t segment, pen_error *err)
{
    const pen_spool_segment *last = pen_spool_segments_last(&spool->segments);
    PEN_ASSERT(last == NULL || pen_spool_cursors_are_from(spool, segment < last->header.segment
                                                                     ? segment
                                                                     : last->header.segment));
    return pen_spool_segments_trim(&spool->segments, segment, err);
}
