//! The kernel half. `hooks/` holds one file per event family with a program per hook; everything else is what they
//! share: maps, reading kernel memory, the path walk, bindings, judging, telling.

mod emit;
mod globals;
mod hooks;
mod judge;
mod maps;
mod read;
mod recognise;
mod scratch;
mod tag;
mod walk;
