"""SQLite in memory: inserts, an index, joins and grouping."""

import sqlite3


def main():
    database = sqlite3.connect(":memory:")
    database.execute("create table item (id integer primary key, name text, kind integer, price real)")
    database.execute("create table kind (id integer primary key, label text)")
    database.executemany("insert into kind values (?, ?)", [(n, f"kind {n}") for n in range(20)])
    database.executemany(
        "insert into item (name, kind, price) values (?, ?, ?)",
        ((f"item {n * 37 % 1000}", n % 20, n * 1.25) for n in range(6000)),
    )
    database.execute("create index by_name on item (name)")
    rows = database.execute(
        "select label, count(*), round(sum(price), 2), max(name) from item join kind on kind.id = item.kind "
        "where name like 'item 1%' group by label order by label"
    ).fetchall()
    found = sum(
        len(database.execute("select price from item where name = ?", (f"item {n}",)).fetchall()) for n in range(400)
    )
    database.close()
    return len(rows), found
