//! The database of what people decided: `state.sqlite` in the state directory.
//!
//! Write-ahead log with `synchronous = FULL`: what was answered to a person is on disk. A database that is damaged, of a
//! newer version or of something else is refused with a clear error, and then nothing is widened. Times are kept on the
//! boot clock of one boot; opening in another boot moves every end ([`Deadline::rebased`]).

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::when::{Deadline, Now};
use crate::model::Time;

/// Version of the schema, in `user_version`.
const VERSION: i64 = 2;
/// Marks the file as ours, in `application_id` ("AgMo").
const APPLICATION: i64 = 0x4167_4d6f;

/// The steps to it, from an empty database.
const SCHEMA: [&str; 2] = [include_str!("store/schema.sql"), include_str!("store/schema-2.sql")];

/// Tables with an end that the reboot moves.
const WITH_DEADLINE: [&str; 3] = ["approval", "session", "grant_"];

/// The database cannot be used. Nothing was changed by the call that gave this.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is damaged.
    #[error(
        "the state database {} is damaged ({what}): sessions, grants, approvals and retirements are not known, so nothing is approved; restore it from a backup, or move it away if none of these may be in force",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// How it shows.
        what: String,
    },
    /// It is not ours, or of a newer version.
    #[error("{} is no state database of this program: {what}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// There is no room.
    #[error("the disk of the state database {} is full: nothing was decided; make room and try again", .0.display())]
    Full(PathBuf),
    /// Anything else.
    #[error("cannot use the state database {}: {source}", path.display())]
    Sql {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
}

/// What one boot left to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The host was started anew since the database was last used.
    pub rebooted: bool,
    /// The last daemon ended as it should.
    pub clean: bool,
    /// Nanoseconds of wall clock since a daemon was last alive.
    pub down: u64,
}

/// The open database.
#[derive(Debug)]
pub struct Db {
    conn: Connection,
    path: PathBuf,
    /// The latest moment ever seen, on the wall clock, and when in this boot.
    high: Now,
}

impl Db {
    /// Opens or makes the database. `boot_id` says which boot of the host this is.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open(path: &Path, boot_id: &str, now: Now) -> Result<(Self, Opened), StoreError> {
        let fail = |source| classify(path, source);
        let conn = Connection::open(path).map_err(fail)?;
        if path != Path::new(":memory:") {
            restrict(path);
        }
        let mut db = Self { conn, path: path.to_owned(), high: now };
        db.conn.busy_timeout(std::time::Duration::from_secs(2)).map_err(fail)?;
        db.check()?;
        db.conn
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
                 PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF;",
            )
            .map_err(fail)?;
        db.migrate()?;
        let opened = db.enter_boot(boot_id, now)?;
        Ok((db, opened))
    }

    /// What is wrong with the file, before anything is written to it.
    fn check(&self) -> Result<(), StoreError> {
        let fail = |source| classify(&self.path, source);
        let number = |pragma: &str| self.conn.query_row(pragma, [], |row| row.get::<_, i64>(0));
        let version = number("PRAGMA user_version").map_err(fail)?;
        let application = number("PRAGMA application_id").map_err(fail)?;
        let tables = number("SELECT count(*) FROM sqlite_schema").map_err(fail)?;
        let foreign = |what: String| StoreError::Foreign { path: self.path.clone(), what };
        if tables > 0 && application != APPLICATION {
            return Err(foreign(format!("its application id is {application}")));
        }
        if version > VERSION {
            return Err(foreign(format!(
                "its schema is version {version}, this program knows {VERSION}: run the newer program"
            )));
        }
        let verdict: String =
            self.conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(fail)?;
        if verdict == "ok" {
            Ok(())
        } else {
            Err(StoreError::Corrupt { path: self.path.clone(), what: verdict })
        }
    }

    fn migrate(&mut self) -> Result<(), StoreError> {
        let version: i64 = self.read(|conn| conn.query_row("PRAGMA user_version", [], |row| row.get(0)))?;
        if version == VERSION {
            return Ok(());
        }
        self.write(|tx| {
            for step in SCHEMA.iter().skip(usize::try_from(version).unwrap_or(0)) {
                tx.execute_batch(step)?;
            }
            tx.pragma_update(None, "application_id", APPLICATION)?;
            tx.pragma_update(None, "user_version", VERSION)
        })
    }

    fn enter_boot(&mut self, boot_id: &str, now: Now) -> Result<Opened, StoreError> {
        let known: Option<(String, i64, i64, bool, i64)> = self.read(|conn| {
            let sql = "SELECT boot_id, seen_boot, seen_wall, clean, high_wall FROM meta";
            let row = |row: &rusqlite::Row<'_>| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
            };
            conn.query_row(sql, [], row).optional()
        })?;
        self.high = now;
        let Some((before, boot, wall, clean, high)) = known else {
            self.write(|tx| {
                let sql = "INSERT INTO meta(only, boot_id, seen_boot, seen_wall, clean, high_wall) \
                           VALUES (1, ?, ?, ?3, 0, ?3)";
                tx.execute(sql, params![boot_id, signed(now.boot), wall_nanos(now.wall)]).map(drop)
            })?;
            return Ok(Opened { rebooted: false, clean: true, down: 0 });
        };
        let seen = Now { wall: wall_time(wall), boot: unsigned(boot) };
        let rebooted = before != boot_id;
        // Of another boot only the wall clock is known; of this one, how long ago it was.
        self.high = Now { wall: wall_time(high), boot: if rebooted { now.boot } else { seen.boot } };
        let high = self.effective(now);
        self.write(|tx| {
            if rebooted {
                WITH_DEADLINE.iter().try_for_each(|table| rebase(tx, table, seen, now))?;
            }
            let sql = "UPDATE meta SET boot_id = ?, seen_boot = ?, seen_wall = ?, clean = 0, high_wall = ?";
            let row = params![boot_id, signed(now.boot), wall_nanos(now.wall), wall_nanos(high)];
            tx.execute(sql, row).map(drop)
        })?;
        let down = u64::try_from(now.wall.unix_nanos() - seen.wall.unix_nanos()).unwrap_or(0);
        Ok(Opened { rebooted, clean, down })
    }

    /// The latest moment ever seen, on the wall clock, and when in this boot: the base of [`Db::effective`].
    #[must_use]
    pub fn high(&self) -> Now {
        self.high
    }

    /// Notes that the daemon is alive; with `clean`, that it ends as it should.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn seen(&mut self, now: Now, clean: bool) -> Result<(), StoreError> {
        let high = self.effective(now);
        self.write(|tx| {
            let sql = "UPDATE meta SET seen_boot = ?, seen_wall = ?, clean = ?, high_wall = ?";
            let row = params![signed(now.boot), wall_nanos(now.wall), clean, wall_nanos(high)];
            tx.execute(sql, row).map(drop)
        })?;
        self.high = Now { wall: high, boot: now.boot };
        Ok(())
    }

    /// The wall clock for end dates: it never goes back, also when the clock is set back, by hand or by a reboot.
    #[must_use]
    pub fn effective(&self, now: Now) -> Time {
        effective(self.high, now)
    }

    /// What was just written is not there.
    pub(super) fn missing(&self) -> StoreError {
        StoreError::Corrupt { path: self.path.clone(), what: "what was written is not there".to_owned() }
    }

    /// Reads.
    ///
    /// # Errors
    /// When it fails.
    pub fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        work(&self.conn).map_err(|source| classify(&self.path, source))
    }

    /// Writes all of it, durably, or nothing.
    ///
    /// # Errors
    /// When it fails; then nothing was written.
    pub fn write<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let Self { conn, path, .. } = self;
        let run = |conn: &mut Connection| {
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&tx)?;
            tx.commit()?;
            Ok(value)
        };
        run(conn).map_err(|source| classify(path, source))
    }
}

/// Only the daemon's user reads what was decided. The directory is closed too, so a failure is not fatal.
fn restrict(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    if let Err(error) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)) {
        tracing::warn!(path = %path.display(), %error, "cannot close the state database to others");
    }
}

fn rebase(tx: &Transaction<'_>, table: &str, seen: Now, now: Now) -> rusqlite::Result<()> {
    let mut select = tx.prepare(&format!(
        "SELECT rowid, deadline_boot, deadline_wall FROM {table} WHERE deadline_boot IS NOT NULL"
    ))?;
    let rows = select.query_map([], |row| {
        let end = Deadline { boot: unsigned(row.get(1)?), wall: wall_time(row.get(2)?) };
        Ok((row.get::<_, i64>(0)?, end))
    })?;
    let rows: Vec<(i64, Deadline)> = rows.collect::<rusqlite::Result<_>>()?;
    let mut update =
        tx.prepare(&format!("UPDATE {table} SET deadline_boot = ?, deadline_wall = ? WHERE rowid = ?"))?;
    for (id, end) in rows {
        let end = end.rebased(seen, now);
        update.execute(params![signed(end.boot), wall_nanos(end.wall), id])?;
    }
    Ok(())
}

fn classify(path: &Path, source: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt) => StoreError::Corrupt { path, what: source.to_string() },
        Some(ErrorCode::NotADatabase) => StoreError::Corrupt { path, what: "it is no database".to_owned() },
        Some(ErrorCode::DiskFull) => StoreError::Full(path),
        _ => StoreError::Sql { path, source },
    }
}

/// The wall clock `now`, but never less than the clock at `high` carried on by the boot clock.
#[must_use]
pub fn effective(high: Now, now: Now) -> Time {
    let passed = i128::from(now.boot.saturating_sub(high.boot));
    now.wall.max(Time::from_unix_nanos(high.wall.unix_nanos().saturating_add(passed)))
}

/// The ids of retired agents in a database that perhaps a daemon is using: for those who register agents without one.
///
/// # Errors
/// When it is there and cannot be read.
pub fn retired_ids(path: &Path) -> Result<std::collections::BTreeSet<String>, StoreError> {
    if !path.exists() {
        return Ok(std::collections::BTreeSet::new());
    }
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let read = || {
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(std::time::Duration::from_secs(2))?;
        let mut select = conn.prepare("SELECT agent FROM life WHERE state = 'retired'")?;
        let ids = select.query_map([], |row| row.get(0))?;
        ids.collect::<rusqlite::Result<std::collections::BTreeSet<String>>>()
    };
    read().map_err(|source| classify(path, source))
}

/// Bits of a number as SQLite keeps them.
#[must_use]
pub fn signed(number: u64) -> i64 {
    i64::from_ne_bytes(number.to_ne_bytes())
}

/// The number that [`signed`] was given.
#[must_use]
pub fn unsigned(bits: i64) -> u64 {
    u64::from_ne_bytes(bits.to_ne_bytes())
}

/// Wall clock as it is kept: nanoseconds since 1970.
#[must_use]
pub fn wall_nanos(time: Time) -> i64 {
    i64::try_from(time.unix_nanos()).unwrap_or(if time < Time::EPOCH { i64::MIN } else { i64::MAX })
}

/// The time that [`wall_nanos`] was given.
#[must_use]
pub fn wall_time(nanos: i64) -> Time {
    Time::from_unix_nanos(nanos.into())
}

#[cfg(test)]
mod tests;
