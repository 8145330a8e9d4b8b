-- Files of runs, and artifacts: collections, their versions, aliases and files. Bytes are in the folder of blobs,
-- under the SHA-256 given here; MD5 is in base64, as the client writes it. Times are seconds since 1970 in UTC.

CREATE TABLE run_file (
    id INTEGER PRIMARY KEY,
    run_id INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    md5 TEXT NOT NULL,
    size INTEGER NOT NULL,
    updated_at REAL NOT NULL,
    UNIQUE (run_id, name)
) STRICT;

CREATE TABLE collection (
    id INTEGER PRIMARY KEY,
    project_id INTEGER NOT NULL REFERENCES project (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,                     -- ArtifactSequence: logged here; ArtifactPortfolio: linked here
    type TEXT NOT NULL,
    description TEXT,
    tags TEXT NOT NULL DEFAULT '[]',
    next_version INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    UNIQUE (project_id, name)
) STRICT;

CREATE TABLE artifact (
    id INTEGER PRIMARY KEY,
    collection_id INTEGER NOT NULL REFERENCES collection (id) ON DELETE CASCADE,
    run_id INTEGER REFERENCES run (id) ON DELETE SET NULL,
    state TEXT NOT NULL,                    -- PENDING until all of it is here, then COMMITTED
    client_id TEXT,                         -- the client's own name for it, the same when it asks again
    digest TEXT NOT NULL,
    description TEXT,
    metadata TEXT,
    tags TEXT NOT NULL DEFAULT '[]',
    aliases TEXT NOT NULL DEFAULT '[]',     -- to be given when it is committed
    ttl_seconds INTEGER,
    history_step INTEGER,
    size INTEGER NOT NULL DEFAULT 0,
    file_count INTEGER NOT NULL DEFAULT 0,
    manifest_type TEXT,
    manifest_md5 TEXT,
    manifest_sha256 TEXT,
    base_id INTEGER REFERENCES artifact (id) ON DELETE SET NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL
) STRICT;
CREATE INDEX artifact_digest ON artifact (collection_id, digest);
CREATE INDEX artifact_run ON artifact (run_id);
CREATE INDEX artifact_client ON artifact (client_id);

-- Which version of which collection an artifact is: one row for where it was logged, one for each link.
CREATE TABLE membership (
    id INTEGER PRIMARY KEY,
    collection_id INTEGER NOT NULL REFERENCES collection (id) ON DELETE CASCADE,
    artifact_id INTEGER NOT NULL REFERENCES artifact (id) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    created_at REAL NOT NULL,
    UNIQUE (collection_id, version),
    UNIQUE (artifact_id, collection_id)
) STRICT;

CREATE TABLE alias (
    id INTEGER PRIMARY KEY,
    collection_id INTEGER NOT NULL REFERENCES collection (id) ON DELETE CASCADE,
    membership_id INTEGER NOT NULL REFERENCES membership (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    UNIQUE (collection_id, name)
) STRICT;
CREATE INDEX alias_membership ON alias (membership_id);

CREATE TABLE artifact_file (
    id INTEGER PRIMARY KEY,
    artifact_id INTEGER NOT NULL REFERENCES artifact (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    md5 TEXT NOT NULL,                      -- a reference's digest may be another
    sha256 TEXT,                            -- null until it is uploaded, and for a reference
    size INTEGER,
    ref TEXT,                               -- the address of a file kept elsewhere
    updated_at REAL NOT NULL,
    UNIQUE (artifact_id, name)
) STRICT;
CREATE INDEX artifact_file_md5 ON artifact_file (md5);

CREATE TABLE artifact_use (
    run_id INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    artifact_id INTEGER NOT NULL REFERENCES artifact (id) ON DELETE CASCADE,
    created_at REAL NOT NULL,
    PRIMARY KEY (run_id, artifact_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX artifact_use_artifact ON artifact_use (artifact_id);
