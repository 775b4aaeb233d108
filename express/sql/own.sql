-- ImageInvoker's own tables, wherever it works.

CREATE TABLE ii_request (
    request_id {varchar}(36) NOT NULL PRIMARY KEY,
    site {varchar}(32) NOT NULL,
    machine {varchar}(64) NOT NULL,
    digest {varchar}(64) NOT NULL,
    state {varchar}(16) NOT NULL,
    outcome {text} NOT NULL,
    technician {varchar}(255),
    item_id {varchar}(255) NOT NULL,
    created_at {datetime} NOT NULL
);

CREATE INDEX ii_request_created ON ii_request (created_at);

CREATE TABLE ii_lock (
    lock_key {varchar}(128) NOT NULL PRIMARY KEY
);
