"""What the tests of a migration share: starting one, waiting for a phase, its end with everything compared."""

from .everything import phase, same_definitions, same_rows, sequences_are_beyond
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
