//! What people decide, in the kernel's tables: tickets, sessions, grants, lives, and the sign that somebody can be asked.

use agent_monitor_ebpf::people::{
    GRANTS, GrantEntry, GrantLife, GrantList, LIFE_ACTIVE, SessionEntry, Ticket, TicketKey, USES_MAX, UseKey,
};
use agent_monitor_ebpf::policy::{AgentKey, AgentPolicy};
use aya::maps::{Array, HashMap, MapData};

use super::{
    KernelError,
    object::Kernel,
    pod::Plain,
    tables::{ignore_absent, remove},
};
use crate::scope::image::PolicyImage;

/// An empty place in a list.
const NO_GRANT: GrantEntry = GrantEntry { id: 0, session: 0, policy: 0, reserved: 0 };

/// Says to the kernel that somebody can be asked. Apart from everything else: what takes long must not make the kernel
/// refuse what it could hold.
pub struct Pulse(Array<MapData, u64>);

impl std::fmt::Debug for Pulse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pulse").finish_non_exhaustive()
    }
}

impl Pulse {
    /// Somebody can be asked at this time of the boot clock, nanoseconds.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn beat(&mut self, now: u64) -> Result<(), KernelError> {
        self.0.set(0, now, 0).map_err(|e| KernelError::bpf("write the heartbeat", &e))
    }
}

impl Kernel {
    /// Puts a decision in force, or replaces it.
    ///
    /// # Errors
    /// When the table is full or the kernel refuses: the act stays undecided.
    pub fn put_ticket(&mut self, key: TicketKey, ticket: Ticket) -> Result<(), KernelError> {
        self.insert("TICKETS", vec![(key, ticket)])
    }

    /// Takes a decision back; whether it was still there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn drop_ticket(&mut self, key: &TicketKey) -> Result<(), KernelError> {
        let mut table = self.table::<TicketKey, Ticket>("TICKETS")?;
        ignore_absent(table.remove(&Plain(*key))).map_err(|e| KernelError::bpf("take a decision back", &e))
    }

    /// Removes tickets whose time is over: the kernel ignores them, but they take room.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn sweep_tickets(&mut self, now: u64) -> Result<(), KernelError> {
        let table = self.table::<TicketKey, Ticket>("TICKETS")?;
        let old: Vec<TicketKey> = table
            .iter()
            .filter_map(Result::ok)
            .filter(|(_, ticket)| ticket.0.expires <= now)
            .map(|(key, _)| key.0)
            .collect();
        old.iter().try_for_each(|key| self.drop_ticket(key))
    }

    fn by_number<V>(
        &mut self,
        name: &'static str,
    ) -> Result<HashMap<&mut MapData, u64, Plain<V>>, KernelError>
    where
        Plain<V>: aya::Pod,
    {
        let map = self.ebpf.map_mut(name).ok_or(KernelError::NoObject)?;
        HashMap::try_from(map).map_err(|e| KernelError::bpf(format!("open table {name}"), &e))
    }

    /// Enters a session, or changes it. One that has ended leaves the table: it would fill up with them, and then no new run
    /// of an agent could do anything.
    ///
    /// # Errors
    /// When the table is full or the kernel refuses.
    pub fn put_session(&mut self, id: u64, entry: SessionEntry) -> Result<(), KernelError> {
        if entry.ended != 0 {
            let removed = self.by_number::<SessionEntry>("SESSIONS")?.remove(&id);
            return ignore_absent(removed).map_err(|e| KernelError::bpf("end a session", &e));
        }
        self.by_number("SESSIONS")?
            .insert(id, Plain(entry), 0)
            .map_err(|e| KernelError::bpf("write table SESSIONS (is it full?)", &e))
    }

    /// Says how long a grant lasts and how often it may be used. The uses are entered only the first time: what was used
    /// up stays used up. `expires` 0 revokes at once.
    ///
    /// # Errors
    /// When a table is full or the kernel refuses.
    pub fn put_grant(&mut self, id: u64, expires: u64, uses: u32) -> Result<(), KernelError> {
        let uses = if uses == u32::MAX { uses } else { uses.min(USES_MAX) };
        let known = self.by_number::<GrantLife>("GRANT_LIVES")?.get(&id, 0).is_ok();
        if !known && uses != u32::MAX {
            let keys = (0..uses).map(|number| (UseKey { id, number, reserved: 0 }, 0u32));
            let mut table = self.uses()?;
            for (key, value) in keys {
                table
                    .insert(Plain(key), value, 0)
                    .map_err(|e| KernelError::bpf("write table GRANT_USES (is it full?)", &e))?;
            }
        }
        self.by_number("GRANT_LIVES")?
            .insert(id, Plain(GrantLife { expires, uses, reserved: 0 }), 0)
            .map_err(|e| KernelError::bpf("write table GRANT_LIVES (is it full?)", &e))
    }

    fn uses(&mut self) -> Result<HashMap<&mut MapData, Plain<UseKey>, u32>, KernelError> {
        let map = self.ebpf.map_mut("GRANT_USES").ok_or(KernelError::NoObject)?;
        HashMap::try_from(map).map_err(|e| KernelError::bpf("open table GRANT_USES", &e))
    }

    /// Uses that are left of each counted grant; [`u32::MAX`] for one without a count.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub fn grant_uses(&mut self) -> Result<Vec<(u64, u32)>, KernelError> {
        let mut left: std::collections::BTreeMap<u64, u32> = self
            .by_number::<GrantLife>("GRANT_LIVES")?
            .iter()
            .filter_map(Result::ok)
            .map(|(id, life)| (id, if life.0.uses == u32::MAX { u32::MAX } else { 0 }))
            .collect();
        for key in self.uses()?.keys().filter_map(Result::ok) {
            if let Some(count) = left.get_mut(&key.0.id) {
                *count = count.saturating_add(1);
            }
        }
        Ok(left.into_iter().collect())
    }

    /// Says how an agent stands, at once and in every generation to come: `life` is a `LIFE_*` value, `expires` when it
    /// ends on the boot clock.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn put_life(&mut self, agent: u32, life: u32, expires: u64) -> Result<(), KernelError> {
        self.lives.insert(agent, (life, expires));
        let key = AgentKey { agent, generation: self.runtime.generation };
        let mut table = self.table::<AgentKey, AgentPolicy>("POLICIES")?;
        let Ok(policy) = table.get(&Plain(key), 0) else { return Ok(()) };
        let policy = AgentPolicy { life, expires, ..policy.0 };
        table
            .insert(Plain(key), Plain(policy), 0)
            .map_err(|e| KernelError::bpf("say in table POLICIES how the agent stands", &e))
    }

    /// Takes over how agents stand from an earlier daemon's tables: what is suspended stays so in the first generation of
    /// this one.
    pub(super) fn recall_lives(&mut self) -> Result<(), KernelError> {
        let generation = self.runtime.generation;
        let table = self.table::<AgentKey, AgentPolicy>("POLICIES")?;
        let found: Vec<_> = table
            .iter()
            .filter_map(Result::ok)
            .filter(|(key, _)| key.0.generation == generation)
            .map(|(key, policy)| (key.0.agent, (policy.0.life, policy.0.expires)))
            .filter(|(_, life)| *life != (LIFE_ACTIVE, u64::MAX))
            .collect();
        self.lives.extend(found);
        Ok(())
    }

    /// What says that somebody can be asked; once.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn take_pulse(&mut self) -> Result<Pulse, KernelError> {
        let map = self.ebpf.take_map("HEARTBEAT").ok_or(KernelError::NoObject)?;
        Array::try_from(map).map(Pulse).map_err(|e| KernelError::bpf("open the heartbeat", &e))
    }

    /// Writes the lists of grants of a generation.
    pub(super) fn write_grants(&mut self, image: &PolicyImage, generation: u32) -> Result<(), KernelError> {
        let lists = image.grants.iter().map(|(agent, grants)| {
            let mut list = GrantList { entries: [NO_GRANT; GRANTS] };
            for (slot, grant) in list.entries.iter_mut().zip(grants) {
                *slot = *grant;
            }
            (AgentKey { agent: *agent, generation }, list)
        });
        self.insert("GRANTED", lists.collect())
    }

    /// Removes the lists of generations that `stale` picks.
    pub(super) fn forget_grants(&mut self, stale: impl Fn(u32) -> bool) -> Result<(), KernelError> {
        remove(&mut self.table::<AgentKey, GrantList>("GRANTED")?, |key| stale(key.generation))
    }
}
