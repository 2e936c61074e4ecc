"""PostgreSQL: where records, gaps and sessions are kept for queries, and how they get there exactly once.

Input: TICK rows and gap lines of one session, from whoever holds them. Output: rows of the database. Knows no rings, no
segments and no roles. This room alone imports psycopg; the statements are in sql/queries.sql, the schema in sql/.
"""
