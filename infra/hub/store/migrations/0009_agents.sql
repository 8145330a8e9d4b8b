-- What people ask of agents, until they take it back.

-- '': work; 'pause': take no run; 'drain': leave after the run under way; 'stop': hand that back and leave.
ALTER TABLE agent ADD COLUMN hold TEXT NOT NULL DEFAULT '';
-- The agent that took the place of one that is gone, and its hold.
ALTER TABLE agent ADD COLUMN follower_id INTEGER REFERENCES agent (id) ON DELETE SET NULL;
CREATE INDEX agent_held ON agent (sweep_id, host) WHERE hold <> '';

-- Hosts whose agents are held, those too that join later.
CREATE TABLE held_host (
    sweep_id INTEGER NOT NULL REFERENCES sweep (id) ON DELETE CASCADE,
    host TEXT NOT NULL,
    held_at REAL NOT NULL,
    PRIMARY KEY (sweep_id, host)
) STRICT, WITHOUT ROWID;
