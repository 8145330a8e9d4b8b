-- What keeps reads cheap on a large hub: counters and indices, and a number that tells which runs changed.

-- One more than the last line number of history: counting it for each run of a long list cost more than the run.
ALTER TABLE run ADD COLUMN history_lines INTEGER NOT NULL DEFAULT 0;
UPDATE run SET history_lines =
    (SELECT COALESCE(MAX(number) + 1, 0) FROM line WHERE run_id = run.id AND stream = 'history');

-- What the client says of itself (`_wandb` in its config): long, and read by nobody but the client.
ALTER TABLE run ADD COLUMN client_config TEXT;
UPDATE run SET client_config = json_extract(config, '$._wandb'), config = json_remove(config, '$._wandb')
WHERE CASE WHEN json_valid(config) THEN json_type(config, '$._wandb') END = 'object';

-- Every change of a run gives it the next number of the whole hub, so that a reader asks for what is newer alone.
CREATE TABLE revision (id INTEGER PRIMARY KEY CHECK (id = 1), value INTEGER NOT NULL) STRICT;
INSERT INTO revision VALUES (1, 1);
ALTER TABLE run ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;
CREATE TRIGGER run_made AFTER INSERT ON run BEGIN
    UPDATE revision SET value = value + 1;
    UPDATE run SET revision = (SELECT value FROM revision) WHERE id = NEW.id;
END;
CREATE TRIGGER run_changed AFTER UPDATE ON run WHEN NEW.revision = OLD.revision BEGIN
    UPDATE revision SET value = value + 1;
    UPDATE run SET revision = (SELECT value FROM revision) WHERE id = NEW.id;
END;

CREATE INDEX run_sweep_revision ON run (sweep_id, revision);
CREATE INDEX run_sweep_state ON run (sweep_id, state);
CREATE INDEX run_project_created ON run (project_id, created_at);
DROP INDEX run_agent;
CREATE INDEX run_agent ON run (agent_id, state);
