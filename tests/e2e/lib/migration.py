"""What the tests of a migration share: starting one, waiting for a phase, its end with everything compared."""

import threading

from .everything import about, phase, same_definitions, same_rows, sequences_are_beyond
from .program import DONE, wait_until


def migrate(pair, *extra, **changed):
    return pair.penstock.start(*extra, command="migrate", **changed)


def cutover(pair, *extra, timeout=120, expect=DONE, **changed):
    run = pair.penstock.start("--fence", "none", *extra, command="cutover", **changed)
    run.wait(timeout, expect)
    return run


def wait_phase(pair, wanted, run, timeout=90):
    """Until it is in that phase, or one of those."""
    names = (wanted,) if isinstance(wanted, str) else wanted

    def there():
        assert run.running, f"penstock ended early:\n{run.stderr[-4000:]}"
        return phase(pair) in names
    wait_until(there, timeout, f"the phase {' or '.join(names)}")


CHUNKS = "LOCK TABLE penstock.copied_chunk IN EXCLUSIVE MODE"


def hold_copy(pair, count, start):
    """Has `start` begin a migration, which copies with one job, and holds it up between two chunks, when it has done so
    many; gives what `start` gave, and the session that holds. The slot waits for a transaction that is open on the source:
    so nothing is copied before the lock is there. The job holds no lock on the source then. Each chunk records itself
    first, and who asks for a lock first has it first: so each time one chunk goes by."""
    waiting = ("SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE datname = %s"
               " AND relation = 'penstock.copied_chunk'::regclass AND NOT granted")

    def wait_waiting(number):
        wait_until(lambda: about(pair, waiting, (pair.name,))[0][0] >= number, 60, f"{number} that wait")
    no_slot_yet = pair.hold("SELECT pg_current_xact_id()", pair.source_cluster)
    started = start()
    wait_until(lambda: about(pair, "SELECT to_regclass('penstock.copied_chunk')")[0][0], 60, "the table of chunks")
    holder = pair.hold(CHUNKS)
    no_slot_yet.rollback()
    for _ in range(count):
        wait_waiting(1)
        after = pair.connect(pair.target_cluster)
        after.autocommit = False
        asking = threading.Thread(target=after.cursor().execute, args=(CHUNKS,))
        asking.start()
        wait_waiting(2)
        holder.rollback()
        asking.join()
        holder = after
    wait_waiting(1)
    return started, holder


def equal_after_cutover(pair):
    """Rows, definitions, sequences; gives the number of rows."""
    rows = same_rows(pair)
    same_definitions(pair)
    sequences_are_beyond(pair, 1000)
    return rows


def finish(pair, timeout=180):
    """Goes on to the end of what the source has by now, and cuts over; everything must be equal then."""
    migrate(pair, "--stop-when-caught-up").wait(timeout, DONE)
    cutover(pair, timeout=timeout)
    return equal_after_cutover(pair)
