-- Ids are never given twice: a client may still hold the id, or a signed address, of what was deleted.

CREATE TABLE used_id (
    name TEXT PRIMARY KEY,            -- a table's name
    id INTEGER NOT NULL               -- the highest id that was deleted from it
) STRICT, WITHOUT ROWID;

CREATE TRIGGER used_id_user AFTER DELETE ON user BEGIN
    INSERT INTO used_id VALUES ('user', old.id) ON CONFLICT (name) DO UPDATE SET id = MAX(id, excluded.id);
END;
CREATE TRIGGER used_id_project AFTER DELETE ON project BEGIN
    INSERT INTO used_id VALUES ('project', old.id) ON CONFLICT (name) DO UPDATE SET id = MAX(id, excluded.id);
END;
CREATE TRIGGER used_id_sweep AFTER DELETE ON sweep BEGIN
    INSERT INTO used_id VALUES ('sweep', old.id) ON CONFLICT (name) DO UPDATE SET id = MAX(id, excluded.id);
END;
CREATE TRIGGER used_id_agent AFTER DELETE ON agent BEGIN
    INSERT INTO used_id VALUES ('agent', old.id) ON CONFLICT (name) DO UPDATE SET id = MAX(id, excluded.id);
END;
CREATE TRIGGER used_id_run AFTER DELETE ON run BEGIN
    INSERT INTO used_id VALUES ('run', old.id) ON CONFLICT (name) DO UPDATE SET id = MAX(id, excluded.id);
END;
CREATE TRIGGER used_id_collection AFTER DELETE ON collection BEGIN
    INSERT INTO used_id VALUES ('collection', old.id) ON CONFLICT (name) DO UPDATE SET id = MAX(id, excluded.id);
END;
CREATE TRIGGER used_id_artifact AFTER DELETE ON artifact BEGIN
    INSERT INTO used_id VALUES ('artifact', old.id) ON CONFLICT (name) DO UPDATE SET id = MAX(id, excluded.id);
END;

-- How many runs a user has is asked before each new one.
CREATE INDEX run_user ON run (user_id);
