"""Workers that are cancelled at whatever they are at."""

import threading
import time

# The one that applies what is in progress gives up when it is hit: seldom, so that it comes to its end at times.
WORKERS = ("SELECT pid FROM pg_stat_activity WHERE datname = %s AND (application_name LIKE 'penstock %% worker %%'"
           " OR application_name LIKE 'penstock %% eager' AND random() < 0.02)")
# Half of the transactions, and all that wait for somebody.
MET = "state = 'active' AND (wait_event_type = 'Lock' OR hashtext(pid || ' ' || xact_start) %% 2 = 0)"


class Storm(threading.Thread):
    """Cancels what a random worker is at, again and again; half of the transactions are left alone, for as long as
    they last: one that takes longer than `every`, as on a slow machine many do, would never come to its end."""

    def __init__(self, pair, every=0.02, age=0.0):
        super().__init__()
        self.pair = pair
        self.every = every  # seconds
        self.age = age  # of sessions that are left alone until then, because they are being set up
        self.over = threading.Event()
        self.hits = 0
        self.failure = None

    def run(self):
        connection = self.pair.target_cluster.connect(self.pair.name)
        try:
            with connection.cursor() as cursor:
                while not self.over.is_set():
                    cursor.execute(f"SELECT pg_cancel_backend(pid) FROM ({WORKERS} AND {MET}"
                                   " AND backend_start < now() - %s * interval '1 s'"
                                   " ORDER BY random() LIMIT 1) w", (self.pair.name, self.age))
                    self.hits += cursor.rowcount
                    time.sleep(self.every)
        except Exception as error:  # pylint: disable=broad-except
            self.failure = error
        finally:
            connection.close()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()
        assert self.failure is None, self.failure
