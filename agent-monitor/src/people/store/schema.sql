-- State of people's decisions, version 1. Times: *_wall nanoseconds since 1970, *_boot nanoseconds since the boot in
-- meta. Numbers of 64 bits are kept with their sign bit.
CREATE TABLE meta (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    boot_id TEXT NOT NULL,
    seen_boot INTEGER NOT NULL,
    seen_wall INTEGER NOT NULL,
    clean INTEGER NOT NULL,
    -- The latest wall clock ever seen, carried on by the boot clock: end dates never move away.
    high_wall INTEGER NOT NULL
) STRICT;

CREATE TABLE approval (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    agent TEXT NOT NULL,
    agent_index INTEGER NOT NULL,
    digest INTEGER NOT NULL,
    held INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'denied', 'expired', 'gone')),
    count INTEGER NOT NULL,
    event TEXT NOT NULL,
    asked_wall INTEGER NOT NULL,
    deadline_boot INTEGER NOT NULL,
    deadline_wall INTEGER NOT NULL,
    form TEXT,
    decided_wall INTEGER,
    decided_uid INTEGER,
    decided_user TEXT,
    why TEXT,
    carried INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX approval_open ON approval (agent_index, digest) WHERE state = 'pending';
CREATE INDEX approval_undone ON approval (id) WHERE state <> 'pending' AND carried = 0;
CREATE INDEX approval_by_agent ON approval (agent, id);

CREATE TABLE waiter (
    approval INTEGER NOT NULL REFERENCES approval (id) ON DELETE CASCADE,
    tgid INTEGER NOT NULL,
    start INTEGER NOT NULL,
    session INTEGER NOT NULL,
    released INTEGER NOT NULL DEFAULT 0,
    UNIQUE (approval, tgid, start)
) STRICT;

CREATE TABLE vote (
    approval INTEGER NOT NULL REFERENCES approval (id) ON DELETE CASCADE,
    uid INTEGER NOT NULL,
    user TEXT,
    form TEXT NOT NULL,
    why TEXT,
    at_wall INTEGER NOT NULL,
    PRIMARY KEY (approval, uid)
) STRICT;

CREATE TABLE session (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid TEXT NOT NULL UNIQUE,
    number INTEGER NOT NULL UNIQUE,
    agent TEXT NOT NULL,
    agent_index INTEGER NOT NULL,
    task TEXT,
    scope TEXT,
    root_tgid INTEGER,
    root_start INTEGER,
    bound_by TEXT NOT NULL,
    by_uid INTEGER,
    by_user TEXT,
    started_wall INTEGER NOT NULL,
    deadline_boot INTEGER,
    deadline_wall INTEGER,
    state TEXT NOT NULL CHECK (state IN ('active', 'ended')),
    ended_wall INTEGER,
    ended_uid INTEGER,
    ended_user TEXT,
    why TEXT
) STRICT;
CREATE INDEX session_open ON session (agent) WHERE state = 'active';

CREATE TABLE grant_ (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    agent TEXT NOT NULL,
    session INTEGER,
    scope TEXT NOT NULL,
    reason TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('proposed', 'active', 'revoked', 'expired', 'used')),
    by_uid INTEGER NOT NULL,
    by_user TEXT,
    added_wall INTEGER NOT NULL,
    seconds INTEGER NOT NULL,
    deadline_boot INTEGER,
    deadline_wall INTEGER,
    uses INTEGER,
    uses_left INTEGER,
    ended_wall INTEGER,
    ended_uid INTEGER,
    ended_user TEXT,
    why TEXT
) STRICT;
CREATE INDEX grant_open ON grant_ (agent) WHERE state IN ('proposed', 'active');

CREATE TABLE grant_vote (
    grant_id INTEGER NOT NULL REFERENCES grant_ (id) ON DELETE CASCADE,
    uid INTEGER NOT NULL,
    user TEXT,
    at_wall INTEGER NOT NULL,
    PRIMARY KEY (grant_id, uid)
) STRICT;

CREATE TABLE life (
    agent TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('active', 'suspended', 'retired', 'expired')),
    since_wall INTEGER NOT NULL,
    by_uid INTEGER,
    by_user TEXT,
    why TEXT,
    frozen TEXT,
    active_wall INTEGER,
    reviewed_wall INTEGER,
    reviewed_user TEXT,
    review_due_wall INTEGER
) STRICT;

CREATE TABLE step (
    agent TEXT NOT NULL,
    number INTEGER NOT NULL,
    kind TEXT NOT NULL,
    target TEXT NOT NULL,
    result TEXT NOT NULL,
    evidence TEXT NOT NULL,
    sha256 TEXT,
    at_wall INTEGER NOT NULL,
    by_uid INTEGER,
    by_user TEXT,
    PRIMARY KEY (agent, number)
) STRICT;
