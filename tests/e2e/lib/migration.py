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


def hold_copy(pair, count):
    """Holds the copy, which has one job, up between two chunks, when it has done so many; gives the session that does.
    The job holds no lock on the source then. Each chunk records itself first, and who asks for a lock first has it
    first: so each time one chunk goes by."""
    lock = "LOCK TABLE penstock.copied_chunk IN EXCLUSIVE MODE"
    waiting = ("SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE datname = %s"
               " AND relation = 'penstock.copied_chunk'::regclass AND NOT granted")

    def wait_waiting(number):
        wait_until(lambda: about(pair, waiting, (pair.name,))[0][0] >= number, 60, f"{number} that wait")
    wait_until(lambda: about(pair, "SELECT to_regclass('penstock.copied_chunk')")[0][0], 60, "the table of chunks")
    holder = pair.hold(lock)
    for _ in range(count):
        wait_waiting(1)
        after = pair.connect(pair.target_cluster)
        after.autocommit = False
        asking = threading.Thread(target=after.cursor().execute, args=(lock,))
        asking.start()
        wait_waiting(2)
        holder.rollback()
        asking.join()
        holder = after
    wait_waiting(1)
    return holder


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
