//! Users and groups of this host, from the C library.

use std::ffi::CString;

use super::Directory;
use crate::registry::LinuxFacts;
use crate::registry::facts::HostFacts as _;

/// Most groups of one user (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65_536;

/// Asks the running host, each time anew.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinuxDirectory;

impl Directory for LinuxDirectory {
    fn name(&self, uid: u32) -> Option<String> {
        LinuxFacts.user_by_uid(uid).found().map(|user| user.name)
    }

    fn uid(&self, user: &str) -> Option<u32> {
        LinuxFacts.user_by_name(user).found().map(|user| user.uid)
    }

    fn gid(&self, group: &str) -> Option<u32> {
        LinuxFacts.group_by_name(group).found().map(|group| group.gid)
    }

    fn groups(&self, uid: u32) -> Vec<u32> {
        let Some(user) = LinuxFacts.user_by_uid(uid).found() else { return Vec::new() };
        let Ok(name) = CString::new(user.name) else { return Vec::new() };
        let mut room = 64;
        loop {
            let mut groups: Vec<libc::gid_t> = vec![0; room];
            let mut count = libc::c_int::try_from(room).unwrap_or(libc::c_int::MAX);
            // SAFETY: `name` is a C string, `groups` has room for `count` numbers, and both outlive the call.
            let status =
                unsafe { libc::getgrouplist(name.as_ptr(), user.gid, groups.as_mut_ptr(), &raw mut count) };
            if status >= 0 {
                groups.truncate(usize::try_from(count).unwrap_or(0));
                return groups;
            }
            if room >= GROUPS_MAX {
                return vec![user.gid];
            }
            room *= 4;
        }
    }
}
