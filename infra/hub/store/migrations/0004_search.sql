-- Who decides what runs and what stops: why a run was asked to stop, and what a sweep knows from before it began.

ALTER TABLE run ADD COLUMN stop_reason TEXT;

CREATE TABLE prior_run (
    sweep_id INTEGER NOT NULL REFERENCES sweep (id) ON DELETE CASCADE,
    run_id INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    PRIMARY KEY (sweep_id, run_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX prior_run_run ON prior_run (run_id);
