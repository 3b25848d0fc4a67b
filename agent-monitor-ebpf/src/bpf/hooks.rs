//! One file per event family, one program per hook.

mod argv;
mod cgroup;
mod exec;
mod file;
mod guard;
mod network;
mod partial;
mod privilege;
mod process;
mod script;
mod seed;
