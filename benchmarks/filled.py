"""Fills a database with rows as a busy project has them: 30 days, 20 tasks, five modules.

Most rows look alike, and some filters match few rows, or only the oldest: a plan that walks from
the newest row until it has found fifty shows itself there.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import asyncpg

from aiotrack.repository import statements as sql

DAYS = 30

ROW = """
SELECT
    md5('task' || i) AS task_id,
    CASE
        WHEN i <= n * 0.002 THEN 'legacy.import_' || i % 2
        WHEN i % 250000 = 7 THEN 'media.repair'
        ELSE (ARRAY['billing', 'shop', 'mail', 'report', 'media'])[1 + name / 4]
             || '.' || (ARRAY['send', 'sync', 'render', 'check'])[1 + name % 4]
    END AS task_name,
    CASE
        WHEN i > n - n / 500 THEN (ARRAY['PENDING', 'PENDING', 'STARTED'])[1 + i % 3]
        WHEN i > n - n / 400 AND i % 20 = 0 THEN 'RETRY'
        WHEN chance < 0.0005 THEN 'REVOKED'
        WHEN chance < 0.0805 THEN 'FAILURE'
        ELSE 'SUCCESS'
    END AS status,
    now() - interval '30 days' + (i * 30.0 / n) * interval '1 day' AS created_at,
    'host-' || i % 4 || ':' || (i * 10 / n) * 4 + i % 4 || ':'
        || substr(md5('w' || i * 10 / n), 1, 8) AS ran_on,
    CASE
        WHEN i <= n * 0.001 THEN 'former'
        WHEN i % 20 = 0 THEN 'admin'
        WHEN who < 0.6 THEN (who * 10000)::int::text
    END AS created_by,
    CASE WHEN i % 10 = 3 THEN i / 10 % 50 + 1 END AS config_id,
    CASE WHEN i <= n * 0.001 THEN 'poison'
         ELSE (ARRAY['transient', 'timeout', 'permanent'])[1 + i % 3] END AS error_class,
    CASE
        WHEN i % 2 = 0 THEN jsonb_build_object(
            'order_id', i / 8, 'customer', i % 2000, 'tenant', CASE WHEN i % 4 = 0 THEN 'acme'
            WHEN i <= n * 0.02 THEN 'closed' ELSE 'other' END)
        ELSE '{{}}'
    END AS metadata,
    exp(who * 6 - 5) AS took, i
FROM (
    SELECT i, {rows}::bigint AS n, (random() * random() * 20)::int % 20 AS name,
           random() AS chance, random() AS who
    FROM generate_series(1::bigint, {rows}) AS i
) AS drawn
"""

FILL = """
INSERT INTO aiotrack_executions (
    task_id, task_name, module, status, created_at, created_by, config_id, schedule_id, queue,
    metadata, args, kwargs, exact, attempt, presumed, duplicates, plain,
    run_id, witness, runs, worker, started_at, finished_at, duration, result,
    error, error_type, error_class, traceback
)
SELECT
    task_id, task_name, split_part(task_name, '.', 1), status, created_at, created_by, config_id,
    'task_' || config_id, 'taskiq', metadata, '[42]', '{{"order_id": 7, "language": "de"}}', true,
    1, false, 0, true,
    CASE WHEN status = 'PENDING' THEN '' ELSE md5('run' || i) END,
    CASE status WHEN 'PENDING' THEN 0 WHEN 'STARTED' THEN 1 ELSE 4 END,
    CASE WHEN status = 'PENDING' THEN 0 ELSE 1 END,
    CASE WHEN status <> 'PENDING' THEN ran_on END,
    CASE WHEN status <> 'PENDING' THEN created_at + interval '20 ms' END,
    CASE WHEN is_over THEN created_at + interval '20 ms' + took * interval '1 s' END,
    CASE WHEN is_over THEN took END,
    CASE WHEN status = 'SUCCESS' THEN '{{"sent": true, "to": "somebody@example.org"}}'::jsonb END,
    CASE WHEN status = 'FAILURE' THEN 'the other side did not answer' END,
    CASE WHEN status = 'FAILURE' THEN 'builtins.TimeoutError' END,
    CASE WHEN status = 'FAILURE' THEN error_class END,
    CASE WHEN status = 'FAILURE' THEN repeat('  File "shop/mail.py", line 7, in send\n', 8) END
FROM (
    SELECT *, status IN ('SUCCESS', 'FAILURE', 'REVOKED') AS is_over FROM ({drawn}) AS row
) AS told
"""

INDEXES = """
SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index i
WHERE indrelid = 'aiotrack_executions'::regclass
AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid)
"""


async def indexes_of(connection: asyncpg.Connection) -> list[tuple[str, str]]:
    """Give the names and definitions of the indexes that are no constraint's."""
    return [(row[0], row[1]) for row in await connection.fetch(INDEXES)]


async def fill_postgres(dsn: str, rows: int) -> None:
    """Add *rows* to a database that has the schema; its indexes are made after them."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("SET synchronous_commit = off")
        await connection.execute("SET maintenance_work_mem = '512MB'")
        await connection.execute("SELECT setseed(0.5)")
        indexes = await indexes_of(connection)
        for name, _ in indexes:
            await connection.execute(f"DROP INDEX {name}")
        await connection.execute(FILL.format(drawn=ROW.format(rows=rows)))
        for _, definition in indexes:
            await connection.execute(definition)
        await connection.execute("VACUUM ANALYZE aiotrack_executions")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def fill_sqlite(path: Path, dsn: str, rows: int) -> None:
    """Copy the newest *rows* of Postgres into a file that has the schema."""
    source = await asyncpg.connect(dsn)
    query = sql.Postgres.select(
        sql.EXECUTIONS,
        sql.EXECUTION_COLUMNS,
        f"WHERE id > (SELECT max(id) FROM {sql.EXECUTIONS}) - {rows}",
    )
    marks = ", ".join("?" for _ in sql.EXECUTION_COLUMNS)
    insert = f"INSERT INTO {sql.EXECUTIONS} ({', '.join(sql.EXECUTION_COLUMNS)}) VALUES ({marks})"
    try:
        with contextlib.closing(sqlite3.connect(path)) as file:
            file.execute("PRAGMA synchronous=OFF")
            async with source.transaction():
                batch: list[tuple[object, ...]] = []
                async for row in source.cursor(query, prefetch=5000):
                    batch.append(tuple(row))
                    if len(batch) == 5000:
                        file.executemany(insert, batch)
                        batch.clear()
                file.executemany(insert, batch)
            file.execute("ANALYZE")
            file.commit()
    finally:
        await source.close()
