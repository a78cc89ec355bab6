"""Several clients that write to the source at once."""

import random
import threading
import time

import psycopg2

SCHEMA = """
CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL, note text);
CREATE TABLE hot (id int PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE own (worker int, i int, state text, PRIMARY KEY (worker, i));
CREATE TABLE journal (worker int, i int, amount bigint);
ALTER TABLE journal REPLICA IDENTITY FULL;
"""
ACCOUNTS = 50


class Load:
    """Transfers between accounts (their sum stays 0), a few hot rows, rows of one's own, a journal."""

    def __init__(self, pair, threads=4, transactions=500, retry=False, schema=True):
        self.pair = pair
        self.transactions = transactions
        self.retry = retry
        self.failure = None
        self.threads = [threading.Thread(target=self._run, args=(n,)) for n in range(threads)]
        self.statements = self.transfer
        if schema:
            pair.schema(SCHEMA)

    def fill(self):
        """The first rows, once the slot is there."""
        self.pair.on_source("INSERT INTO accounts SELECT i, 0, '' FROM generate_series(1, %s) i", (ACCOUNTS,))
        self.pair.on_source("INSERT INTO hot SELECT i, 0 FROM generate_series(1, 3) i")

    def transfer(self, worker, i):
        one, other = sorted(random.sample(range(1, ACCOUNTS + 1), 2))
        amount = random.randint(-1000, 1000)
        yield "UPDATE accounts SET balance = balance - %s WHERE id = %s", (amount, one)
        yield "UPDATE accounts SET balance = balance + %s, note = %s WHERE id = %s", (amount, f"{worker}/{i}", other)
        yield "INSERT INTO journal VALUES (%s, %s, %s)", (worker, i, amount)
        yield "INSERT INTO own VALUES (%s, %s, 'new')", (worker, i)
        if i % 2:
            yield "UPDATE own SET state = 'seen' WHERE worker = %s AND i = %s", (worker, random.randint(0, i))
        if i % 5 == 0:
            yield "DELETE FROM own WHERE worker = %s AND i = %s", (worker, random.randint(0, i))
        if i % 11 == 0:
            yield "UPDATE own SET i = -i WHERE worker = %s AND i = %s", (worker, random.randint(1, i + 1))
        yield "UPDATE hot SET n = n + 1 WHERE id = %s", (random.randint(1, 3),)

    def _run(self, worker):
        connection = None
        i = 0
        try:
            while i < self.transactions:
                try:
                    if connection is None:
                        connection = self.pair.source_cluster.connect(self.pair.name, "owner")
                        connection.autocommit = False
                    with connection.cursor() as cursor:
                        for statement, params in self.statements(worker, i):
                            cursor.execute(statement, params)
                    if i % 13 == 12:
                        connection.rollback()
                    else:
                        connection.commit()
                    i += 1
                except psycopg2.Error:
                    if not self.retry:
                        raise
                    # what became of the transaction is unknown: leave its numbers alone
                    i += 1
                    if connection is not None:
                        connection.close()
                    connection = None
                    time.sleep(0.05)
        except Exception as error:  # shown by join(), in the test's own thread
            self.failure = error
        finally:
            if connection is not None:
                connection.close()

    def start(self):
        for thread in self.threads:
            thread.start()

    @property
    def running(self):
        return any(thread.is_alive() for thread in self.threads)

    def join(self):
        for thread in self.threads:
            thread.join()
        if self.failure is not None:
            raise self.failure

    def check(self):
        """After the end: the invariants, on both sides, and every row."""
        for connection in (self.pair.source, self.pair.target):
            with connection.cursor() as cursor:
                cursor.execute("SELECT sum(balance), count(*) FROM accounts")
                assert cursor.fetchone() == (0, ACCOUNTS)
        self.pair.same()
