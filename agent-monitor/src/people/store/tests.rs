//! Tests of the database file itself.

use std::fs;

use super::*;

fn now(second: u64) -> Now {
    Now { wall: Time::from_unix_nanos(i128::from(second) * 1_000_000_000), boot: second * 1_000_000_000 }
}

#[test]
fn what_is_not_a_good_database_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    fs::write(&path, b"this is no database at all, only some text").unwrap();
    let error = Db::open(&path, "a", now(1)).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }) && error.to_string().contains("damaged"), "{error}");
    assert!(fs::read(&path).unwrap().starts_with(b"this is"), "it is not written to");
    fs::remove_file(&path).unwrap();
    let (mut db, opened) = Db::open(&path, "a", now(1)).unwrap();
    assert_eq!(opened, Opened { rebooted: false, clean: true, down: 0 });
    db.write(|tx| {
        for _ in 0..200 {
            tx.execute(
                "INSERT INTO step VALUES (hex(randomblob(8)), 1, 'k', hex(randomblob(200)), 'r', '{}', NULL, 0, NULL, NULL)",
                [],
            )?;
        }
        Ok(())
    })
    .unwrap();
    drop(db);
    // A torn page in the middle.
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0x5a);
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(Db::open(&path, "a", now(2)), Err(StoreError::Corrupt { .. })));
}

#[test]
fn a_newer_or_foreign_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    drop(Db::open(&path, "a", now(1)).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = Db::open(&path, "a", now(1)).unwrap_err();
    assert!(error.to_string().contains("version 99"), "{error}");
    let other = dir.path().join("other.sqlite");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
    assert!(matches!(Db::open(&other, "a", now(1)), Err(StoreError::Foreign { .. })));
}

#[test]
fn a_full_disk_changes_nothing_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    let (mut db, _) = Db::open(&path, "a", now(1)).unwrap();
    let pages: i64 = db.read(|conn| conn.query_row("PRAGMA page_count", [], |row| row.get(0))).unwrap();
    db.read(|conn| conn.pragma_update(None, "max_page_count", pages)).unwrap();
    let insert = "INSERT INTO step VALUES ('a', ?, 'k', hex(zeroblob(9000)), 'r', '{}', NULL, 0, NULL, NULL)";
    let result = db.write(|tx| (0..9).try_for_each(|n| tx.execute(insert, [n]).map(drop)));
    assert!(matches!(result, Err(StoreError::Full(_))), "{result:?}");
    let rows: i64 =
        db.read(|conn| conn.query_row("SELECT count(*) FROM step", [], |row| row.get(0))).unwrap();
    assert_eq!(rows, 0);
}

#[test]
fn a_reboot_and_an_unclean_end_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    let (mut db, _) = Db::open(&path, "a", now(1)).unwrap();
    db.seen(now(5), true).unwrap();
    drop(db);
    let (db, opened) = Db::open(&path, "a", now(9)).unwrap();
    assert_eq!(opened, Opened { rebooted: false, clean: true, down: 4_000_000_000 });
    drop(db);
    let (_db, opened) = Db::open(&path, "b", now(9)).unwrap();
    assert_eq!(opened, Opened { rebooted: true, clean: false, down: 0 });
}

#[test]
fn the_clock_for_end_dates_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    let moment = |wall: u64, boot: u64| Now { wall: now(wall).wall, boot: now(boot).boot };
    let (mut db, _) = Db::open(&path, "a", moment(1000, 10)).unwrap();
    db.seen(moment(1010, 20), false).unwrap();
    assert_eq!(db.effective(moment(500, 50)), now(1040).wall, "set back, 30 s later");
    db.seen(moment(500, 50), false).unwrap();
    drop(db);
    let (db, _) = Db::open(&path, "a", moment(510, 60)).unwrap();
    assert_eq!(db.effective(moment(510, 60)), now(1050).wall);
    drop(db);
    let (db, _) = Db::open(&path, "b", moment(3, 5)).unwrap();
    assert_eq!(db.effective(moment(3, 5)), now(1050).wall, "a reboot without a clock");
    assert_eq!(db.effective(moment(5000, 9)), now(5000).wall);
}

#[test]
fn a_database_of_version_1_is_taken_over_with_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(SCHEMA[0]).unwrap();
    old.pragma_update(None, "application_id", APPLICATION).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    let row = "INSERT INTO grant_(agent, scope, reason, state, by_uid, added_wall, seconds) \
               VALUES ('bot', '', 'r', 'revoked', 0, 0, 1)";
    old.execute(row, []).unwrap();
    drop(old);
    for _ in 0..2 {
        let (db, _) = Db::open(&path, "a", now(1)).unwrap();
        let kept: (i64, Option<String>) = db
            .read(|conn| {
                conn.query_row("SELECT id, by_caller FROM grant_", [], |row| Ok((row.get(0)?, row.get(1)?)))
            })
            .unwrap();
        assert_eq!(kept, (1, None));
        let version: i64 =
            db.read(|conn| conn.query_row("PRAGMA user_version", [], |row| row.get(0))).unwrap();
        assert_eq!(version, VERSION);
    }
}
