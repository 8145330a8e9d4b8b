-- Users and their keys, projects, sweeps, agents, runs and what runs log. Times are seconds since 1970 in UTC.

CREATE TABLE user (
    id INTEGER PRIMARY KEY,
    username TEXT NOT NULL UNIQUE,
    admin INTEGER NOT NULL,
    created_at REAL NOT NULL
) STRICT;

CREATE TABLE api_key (
    hash TEXT PRIMARY KEY,            -- keyed hash; the key itself is nowhere
    user_id INTEGER NOT NULL REFERENCES user (id),
    created_at REAL NOT NULL
) STRICT;

CREATE TABLE project (
    id INTEGER PRIMARY KEY,
    entity TEXT NOT NULL,
    name TEXT NOT NULL,
    user_id INTEGER NOT NULL REFERENCES user (id),
    created_at REAL NOT NULL,
    UNIQUE (entity, name)
) STRICT;

CREATE TABLE sweep (
    id INTEGER PRIMARY KEY,
    project_id INTEGER NOT NULL REFERENCES project (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    user_id INTEGER NOT NULL REFERENCES user (id),
    config_yaml TEXT NOT NULL,
    state TEXT NOT NULL,
    display_name TEXT,
    description TEXT,
    controller TEXT,
    scheduler TEXT,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    UNIQUE (project_id, name)
) STRICT;

CREATE TABLE agent (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    sweep_id INTEGER NOT NULL REFERENCES sweep (id) ON DELETE CASCADE,
    user_id INTEGER NOT NULL REFERENCES user (id),
    host TEXT NOT NULL,
    released INTEGER NOT NULL DEFAULT 0,   -- told to exit
    created_at REAL NOT NULL,
    heartbeat_at REAL NOT NULL
) STRICT;
CREATE INDEX agent_sweep ON agent (sweep_id);

CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    project_id INTEGER NOT NULL REFERENCES project (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    sweep_id INTEGER REFERENCES sweep (id) ON DELETE SET NULL,
    agent_id INTEGER REFERENCES agent (id) ON DELETE SET NULL,
    user_id INTEGER NOT NULL REFERENCES user (id),
    state TEXT NOT NULL,
    display_name TEXT NOT NULL,
    config TEXT NOT NULL DEFAULT '{}',     -- as the client sends it: {"k": {"value": …}}
    summary TEXT NOT NULL DEFAULT '{}',
    args TEXT,                             -- what a sweep gave the run, plain values; the same at every retry
    why TEXT,                              -- the controller's reason for the suggestion
    tags TEXT NOT NULL DEFAULT '[]',
    notes TEXT,
    run_group TEXT,
    job_type TEXT,
    host TEXT,
    program TEXT,
    commit_hash TEXT,
    repo TEXT,
    retries INTEGER NOT NULL DEFAULT 0,
    exit_code INTEGER,
    created_at REAL NOT NULL,
    issued_at REAL,
    started_at REAL,
    heartbeat_at REAL,
    finished_at REAL,
    stop_requested_at REAL,
    UNIQUE (project_id, name)
) STRICT;
CREATE INDEX run_sweep ON run (sweep_id);
CREATE INDEX run_agent ON run (agent_id);
CREATE INDEX run_live ON run (state) WHERE state IN ('pending', 'running', 'preempting', 'preempted');

-- Rows of history, system metrics and console output, by the line number the client gives them.
CREATE TABLE line (
    run_id INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    stream TEXT NOT NULL,
    number INTEGER NOT NULL,
    step INTEGER,                          -- `_step` of a history row
    text TEXT NOT NULL,
    PRIMARY KEY (run_id, stream, number)
) STRICT, WITHOUT ROWID;
