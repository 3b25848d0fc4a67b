//! One file per event family, one program per hook.

mod argv;
mod cgroup;
mod device;
mod exec;
mod file;
mod guard;
mod ioctl;
pub(crate) mod layer;
mod network;
mod partial;
mod privilege;
mod process;
mod script;
mod seed;
