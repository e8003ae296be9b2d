"""Tables of every shape that PostgreSQL has, as the statements that make them."""

from __future__ import annotations

SHAPES = {
    "columns named like aliases": (
        'CREATE TABLE x (x text, t text, tables text, columns text, "(" text, ")" text)',
        "INSERT INTO x VALUES ('1', '2', '3', '4', '5', '6')",
        "CREATE TABLE tables (tables int)",
        "INSERT INTO tables VALUES (7)",
    ),
    "partitioned": (
        "CREATE TABLE p (k int, v text) PARTITION BY RANGE (k)",
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20) PARTITION BY LIST (k)",
        "CREATE TABLE p2a PARTITION OF p2 FOR VALUES IN (11)",
        "CREATE TABLE pd PARTITION OF p DEFAULT",
        "INSERT INTO p VALUES (1, 'a'), (11, 'b'), (99, 'c')",
    ),
    "inherited": (
        "CREATE TABLE parent (a int)",
        "CREATE TABLE child (b int) INHERITS (parent)",
        "INSERT INTO parent VALUES (1)",
        "INSERT INTO child VALUES (2, 3), (4, 5)",
    ),
    "generated and identity": (
        "CREATE TABLE g (a int GENERATED ALWAYS AS IDENTITY, b int, c int GENERATED ALWAYS AS (b * 2) STORED, d text)",
        "INSERT INTO g (b, d) VALUES (1, 'x'), (2, NULL)",
        "CREATE TABLE only_generated (a int GENERATED ALWAYS AS (1 + 1) STORED)",
        "INSERT INTO only_generated DEFAULT VALUES",
    ),
    "without columns": (
        "CREATE TABLE nothing ()",
        "INSERT INTO nothing SELECT FROM generate_series(1, 4)",
        "CREATE TABLE empty_nothing ()",
    ),
    "dropped columns": (
        "CREATE TABLE d (a int, b text, c int)",
        "INSERT INTO d VALUES (1, 'gone', 3)",
        "ALTER TABLE d DROP COLUMN b",
        "INSERT INTO d VALUES (4, 6)",
        "CREATE TABLE all_dropped (a int)",
        "INSERT INTO all_dropped VALUES (1)",
        "ALTER TABLE all_dropped DROP COLUMN a",
    ),
    "odd names": (
        'CREATE SCHEMA "Ödd ""Schema"" %s"',
        'CREATE TABLE "Ödd ""Schema"" %s"."two\nlines; FROM stdin;"'
        ' ("select" int, "a\nb" text, "100%" int, "q""q" int)',
        'INSERT INTO "Ödd ""Schema"" %s"."two\nlines; FROM stdin;" VALUES (1, \'x\', 3, 4)',
        'CREATE TABLE "back\\slash :name $1" ("\\." text)',
        "INSERT INTO \"back\\slash :name $1\" VALUES ('\\.'), ('\\\\.'), (E'a\\n\\\\.\\nb')",
        'CREATE TABLE "user" ("order" int, "end" int)',
        'INSERT INTO "user" VALUES (1, 2)',
    ),
    "values that look like the dump": (
        "CREATE TABLE v (a text)",
        "INSERT INTO v VALUES ('\\.'), ('\\'), ('\\\\'), (E'\\n'), (E'\\t'), (''), (NULL), ('\\N')",
        "INSERT INTO v VALUES (E'\\r\\n\\\\.\\r\\n'), (E'\\n\\\\.\\n')",
        "INSERT INTO v VALUES ('-- PostgreSQL database dump complete'), ('COPY public.v (a) FROM stdin;')",
        "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$\nSELECT 'COPY public.v (a) FROM stdin;\n1\n\\.\n\n--\n"
        "-- PostgreSQL database dump complete\n--\n' $$",
        "COMMENT ON TABLE v IS E'two\\nlines\\n\\\\.\\n-- PostgreSQL database dump complete\\n'",
    ),
    "materialized, unlogged, typed, foreign": (
        "CREATE TABLE base (a int)",
        "INSERT INTO base VALUES (1)",
        "CREATE MATERIALIZED VIEW mv AS SELECT a FROM base",
        "INSERT INTO base VALUES (2)",
        "CREATE VIEW w AS SELECT * FROM base",
        "CREATE UNLOGGED TABLE u AS SELECT 5 AS a",
        "CREATE TYPE pair AS (l int, r int)",
        "CREATE TABLE typed OF pair",
        "INSERT INTO typed VALUES (1, 2)",
        "CREATE EXTENSION file_fdw",
        "CREATE SERVER files FOREIGN DATA WRAPPER file_fdw",
        "CREATE FOREIGN TABLE far (a text) SERVER files OPTIONS (filename '/dev/null')",
    ),
    "many types": (
        "CREATE TABLE m (a bytea, b json, c jsonb, d int[], e timestamptz, f money, g interval, h float8, i float4,"
        " j numeric, k inet, l tsvector, m uuid, o box, p int4range, q bit varying, r regclass, s date)",
        "INSERT INTO m VALUES ('\\x00ff5c2e0a', '{\"a\": \"\\n\"}', '{\"b\": [1]}', '{{1,2},{3,NULL}}',"
        " '2024-03-31 02:30:00+01', 12.34, '1 year -2 days 03:04:05.678', 0.1 + 0.2, 1e-30, 'NaN', '10.0.0.0/8',"
        " to_tsvector('simple', 'a b'), '00000000-0000-0000-0000-000000000001', '(1,2),(3,4)',"
        " '[1,5)', B'101', 'm', '0044-03-15 BC')",
    ),
    "other schemas and temporary tables": (
        "CREATE SCHEMA s",
        "CREATE TABLE s.t (a int)",
        "CREATE TABLE t (a int)",
        "INSERT INTO s.t VALUES (1)",
        "INSERT INTO t VALUES (2), (3)",
        "CREATE TEMPORARY TABLE gone (a int)",
    ),
    "no tables at all": ("SELECT 1",),
}
