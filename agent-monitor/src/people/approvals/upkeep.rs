//! What happens without a person: time-outs, processes that end, daemons that end.

use rusqlite::params;
use serde_json::json;

use super::{COLUMNS, Stored, Waiter, flood_told, stored, waiter};
use crate::attribute::TaskKey;
use crate::model::Kind;
use crate::people::store::{Opened, signed, unsigned};
use crate::people::{Done, Effect, Now, People, StoreError, told};
use crate::registry::record::OnDaemonLoss;

/// Requests that are kept after they were decided, for reviews.
const KEPT: i64 = 100_000;

/// What the new daemon finds of the old one's requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restart {
    /// Wait on.
    pub waiting: usize,
    /// Were refused, for the record says so, or the host was started anew.
    pub refused: usize,
    /// Had been decided, but not carried out.
    pub undone: usize,
}

impl People {
    fn pending(&self) -> Result<Vec<Stored>, StoreError> {
        self.db.read(|conn| {
            let sql = format!("SELECT {COLUMNS} FROM approval WHERE state = 'pending' ORDER BY id");
            conn.prepare_cached(&sql)?.query_map([], stored)?.collect()
        })
    }

    /// Denies what nobody has answered in time.
    ///
    /// # Errors
    /// When it cannot be kept; what waits then waits on.
    pub fn expire(&mut self, now: Now, done: &mut Done) -> Result<(), StoreError> {
        for found in self.pending()?.into_iter().filter(|found| found.deadline.over(now)) {
            self.give_up(&found, "expired", "nobody answered in time", now, done)?;
        }
        Ok(())
    }

    pub(in crate::people) fn give_up(
        &mut self,
        found: &Stored,
        state: &str,
        why: &str,
        now: Now,
        done: &mut Done,
    ) -> Result<(), StoreError> {
        let waiters = self.waiters(found.id)?;
        self.close(found, state, None, None, now, &[])?;
        let whom: Vec<_> = waiters.iter().map(|waiter| (waiter.key, found.held)).collect();
        self.refuse(found.index, found.digest, &whom, now, done);
        done.effects.push(Effect::Carried(found.id));
        let kind = match state {
            "gone" => Kind::ApprovalGone,
            "denied" => Kind::ApprovalDenied,
            _ => Kind::ApprovalExpired,
        };
        let fields = [
            ("approval", json!(found.id)),
            ("digest", json!(format!("{:016x}", found.digest))),
            ("count", json!(found.count)),
            ("why", json!(why)),
        ];
        done.events.push(told(now, kind, &found.agent, fields));
        Ok(())
    }

    /// Lets processes go that do not wait any more: nobody needs to answer for them. `alive` says whether a process still
    /// is there and waits, `why` what became of the others.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn bury(
        &mut self,
        alive: &mut dyn FnMut(TaskKey) -> bool,
        why: &str,
        now: Now,
        done: &mut Done,
    ) -> Result<(), StoreError> {
        for found in self.pending()?.into_iter().filter(|found| found.held) {
            let waiters = self.waiters(found.id)?;
            let dead: Vec<TaskKey> =
                waiters.iter().map(|waiter| waiter.key).filter(|key| !alive(*key)).collect();
            if dead.is_empty() {
                continue;
            }
            self.db.write(|tx| {
                let sql = "DELETE FROM waiter WHERE approval = ? AND tgid = ? AND start = ?";
                let mut delete = tx.prepare_cached(sql)?;
                dead.iter().try_for_each(|key| {
                    delete.execute(params![found.id, key.tgid, signed(key.start)]).map(drop)
                })
            })?;
            if dead.len() == waiters.len() {
                self.give_up(&found, "gone", why, now, done)?;
            }
        }
        Ok(())
    }

    /// Notes that a decision was carried out. Its waiters are not needed any more.
    ///
    /// # Errors
    /// When it cannot be written; then the next daemon asks the processes that are still stopped again.
    pub fn carried(&mut self, id: i64) -> Result<(), StoreError> {
        self.db.write(|tx| {
            tx.execute("UPDATE approval SET carried = 1 WHERE id = ?", [id])?;
            tx.execute("UPDATE waiter SET released = 1 WHERE approval = ?", [id]).map(drop)
        })
    }

    /// What a new daemon does with the requests of the one before. Nothing passes by this: processes whose decision may
    /// not have been carried out are judged again, and ask again if they must.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn restart(
        &mut self,
        opened: Opened,
        on_loss: &dyn Fn(&str) -> OnDaemonLoss,
        now: Now,
        done: &mut Done,
    ) -> Result<Restart, StoreError> {
        let mut restart = Restart::default();
        let undone: Vec<(i64, Waiter)> = self.db.read(|conn| {
            let sql = "SELECT approval, tgid, start, session FROM waiter WHERE released = 0 AND approval IN \
                       (SELECT id FROM approval WHERE state <> 'pending' AND carried = 0)";
            let mut select = conn.prepare(sql)?;
            let rows = select.query_map([], |row| {
                let key = TaskKey { tgid: row.get(1)?, start: unsigned(row.get(2)?) };
                Ok((row.get(0)?, Waiter { key, session: unsigned(row.get(3)?) }))
            })?;
            rows.collect()
        })?;
        for (id, waiter) in undone {
            restart.undone += 1;
            if !opened.rebooted {
                done.effects.push(Effect::Wake(waiter.key));
            }
            done.effects.push(Effect::Carried(id));
        }
        for found in self.pending()? {
            let gone = "the host was started anew: the process is no more";
            let lost = "the daemon had ended, and the record says on_daemon_loss = \"deny\"";
            let dead = Done::default;
            match (opened.rebooted, on_loss(&found.agent)) {
                // The processes of another boot are not: nothing to do in the kernel.
                (true, _) => {
                    let mut nothing = dead();
                    self.give_up(&found, "gone", gone, now, &mut nothing)?;
                    done.events.append(&mut nothing.events);
                    done.effects.push(Effect::Carried(found.id));
                    restart.refused += 1;
                }
                (false, OnDaemonLoss::Deny) => {
                    self.give_up(&found, "denied", lost, now, done)?;
                    restart.refused += 1;
                }
                (false, OnDaemonLoss::Wait) => restart.waiting += 1,
            }
        }
        self.expire(now, done)?;
        Ok(restart)
    }

    /// Writes down what is only in memory, ends floods that are over, and lets go of what is very old.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&mut self, now: Now, done: &mut Done) -> Result<(), StoreError> {
        if !self.merged.is_empty() {
            let merged = self.merged.clone();
            self.db.write(|tx| {
                let mut update = tx.prepare_cached("UPDATE approval SET count = count + ? WHERE id = ?")?;
                merged.iter().try_for_each(|(id, more)| update.execute(params![signed(*more), id]).map(drop))
            })?;
            self.merged.clear();
        }
        let agents: Vec<u32> = self.floods.keys().copied().collect();
        for agent in agents {
            if self.waiting(agent)? < self.settings.pending_max
                && let Some(flood) = self.floods.remove(&agent)
            {
                done.events.push(flood_told(now, &flood, "over"));
            }
        }
        Ok(())
    }

    /// Lets go of requests that were decided long ago; once a day is enough.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn prune(&mut self) -> Result<usize, StoreError> {
        self.db.write(|tx| {
            let sql =
                "DELETE FROM approval WHERE state <> 'pending' AND id <= (SELECT max(id) FROM approval) - ?";
            tx.execute(sql, [KEPT])
        })
    }

    /// All processes that wait inside an action now, each with the number of the agent that it is asked for and the digest of
    /// the action.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn held(&self) -> Result<Vec<(u32, Waiter, u64)>, StoreError> {
        self.db.read(|conn| {
            let sql = "SELECT w.tgid, w.start, w.session, a.agent_index, a.digest FROM waiter w \
                       JOIN approval a ON a.id = w.approval WHERE a.state = 'pending' AND a.held = 1";
            let found = |row: &rusqlite::Row<'_>| Ok((row.get(3)?, waiter(row)?, unsigned(row.get(4)?)));
            conn.prepare_cached(sql)?.query_map([], found)?.collect()
        })
    }
}
