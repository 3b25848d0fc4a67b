//! The task iterator from user space: bind what runs already, list what runs.

use std::io::Read as _;

use agent_monitor_ebpf::task::TaskLine;
use aya::programs::Iter;
use zerocopy::FromBytes as _;

use super::KernelError;

/// Runs the iterator once over every task of the host.
///
/// # Errors
/// When the iterator cannot be opened or read.
pub(super) fn run(iter: &mut Iter) -> Result<Vec<TaskLine>, KernelError> {
    let id = iter.attach().map_err(|e| KernelError::bpf("start the task iterator", &e))?;
    let link = iter.take_link(id).map_err(|e| KernelError::bpf("start the task iterator", &e))?;
    let mut file = link.into_file().map_err(|e| KernelError::bpf("open the task iterator", &e))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|e| KernelError::io("read", "the task iterator", e))?;
    Ok(bytes.chunks_exact(size_of::<TaskLine>()).filter_map(|c| TaskLine::read_from_bytes(c).ok()).collect())
}
