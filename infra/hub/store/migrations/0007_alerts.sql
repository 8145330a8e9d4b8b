-- What runs told their users by `run.alert(…)`.

CREATE TABLE alert (
    id INTEGER PRIMARY KEY,
    run_id INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    title TEXT NOT NULL,
    text TEXT NOT NULL,
    severity TEXT NOT NULL,                -- INFO, WARN or ERROR
    created_at REAL NOT NULL
) STRICT;
CREATE INDEX alert_run ON alert (run_id);
