//! What a cgroup path says: container id and systemd unit. Pure.

/// Names found in a cgroup path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CgroupNames {
    /// Container id (64 hex digits, or what the runtime uses).
    pub container: Option<String>,
    /// systemd unit that the process belongs to: the innermost that is no slice.
    pub unit: Option<String>,
}

/// What runtimes put before the id in the name of a container's scope.
const SCOPES: &[&str] = &["docker-", "libpod-", "cri-containerd-", "crio-", "containerd-"];

/// Leaf names under which the cgroup of a container may be found.
#[must_use]
pub fn container_leaves(id: &str) -> Vec<String> {
    let scopes = SCOPES.iter().map(|prefix| format!("{prefix}{id}.scope"));
    std::iter::once(id.to_owned())
        .chain(scopes)
        .chain([format!("libpod-{id}"), format!("crio-{id}")])
        .collect()
}

/// Reads the names in a cgroup v2 path.
#[must_use]
pub fn names(cgroup: &str) -> CgroupNames {
    let mut found = CgroupNames::default();
    // `user.slice/user-1000.slice/user@1000.service/app.slice/x.service`: a unit of the user's own manager is not the
    // system's, so there the manager's unit stands.
    let user = cgroup.starts_with("/user.slice/") || cgroup == "/user.slice";
    for part in cgroup.split('/').filter(|part| !part.is_empty()) {
        if let Some(id) = container_id(part) {
            found.container = Some(id.to_owned());
        } else if is_unit(part) && !(user && found.unit.is_some()) {
            found.unit = Some(part.to_owned());
        }
    }
    found
}

fn is_unit(part: &str) -> bool {
    [".service", ".scope", ".socket", ".mount", ".swap"].iter().any(|suffix| part.ends_with(suffix))
}

/// The container id in one component of a cgroup path.
fn container_id(part: &str) -> Option<&str> {
    let scoped = part.strip_suffix(".scope").unwrap_or(part);
    let bare = SCOPES.iter().find_map(|prefix| scoped.strip_prefix(prefix));
    // `libpod-conmon-…` and `crio-conmon-…` hold the runtime's monitor, not the container.
    let id = bare.unwrap_or(scoped);
    let hex = |id: &str| id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let long_enough = if bare.is_some() { id.len() >= 12 } else { id.len() == 64 };
    // `kubepods-…:cri-containerd:ID` of a containerd without systemd cgroups.
    let tail = id.rsplit(':').next().unwrap_or(id);
    if long_enough && hex(id) {
        Some(id)
    } else if id.contains(":cri-containerd:") && hex(tail) {
        Some(tail)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn names_of_runtimes() {
        for path in [
            format!("/system.slice/docker-{ID}.scope"),
            format!("/docker/{ID}"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
            format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"),
            format!("/kubepods.slice/crio-{ID}.scope"),
            format!("/kubepods/burstable/pod1/{ID}"),
            format!("/system.slice/kubepods-x.slice:cri-containerd:{ID}"),
        ] {
            assert_eq!(names(&path).container.as_deref(), Some(ID), "{path}");
        }
        assert_eq!(names(&format!("/machine.slice/libpod-conmon-{ID}.scope")).container, None);
        assert_eq!(names("/user.slice").container, None);
    }

    #[test]
    fn names_of_units() {
        let unit = |path: &str| names(path).unit;
        assert_eq!(unit("/system.slice/bot.service").as_deref(), Some("bot.service"));
        assert_eq!(unit("/system.slice/bot.service/sub").as_deref(), Some("bot.service"));
        assert_eq!(
            unit("/user.slice/user-1.slice/user@1.service/app.slice/bot.service").as_deref(),
            Some("user@1.service")
        );
        assert_eq!(unit("/user.slice/user-1.slice/session-2.scope").as_deref(), Some("session-2.scope"));
        assert_eq!(unit("/"), None);
    }
}
