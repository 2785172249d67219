"""What ``aiotrack demo`` runs: a real broker, worker and database, with tasks of every kind.

`tasks` is what a user's own module looks like; `kinds` says what is sent and how it must end;
`run` starts the parts and follows them on a `screen` to the `summary`.
"""
