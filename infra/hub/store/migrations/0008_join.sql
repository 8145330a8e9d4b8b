-- Words that let a host join, each once; and which keys were made so. Times are seconds since 1970 in UTC.

CREATE TABLE join_token (
    hash TEXT PRIMARY KEY,                 -- keyed, as those of keys are
    user_id INTEGER NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    sweep_id INTEGER NOT NULL REFERENCES sweep (id) ON DELETE CASCADE,
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    used_at REAL
) STRICT;

ALTER TABLE api_key ADD COLUMN host TEXT;  -- the host that joined with it; none where a person was given it
