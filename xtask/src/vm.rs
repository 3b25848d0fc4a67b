//! The VM matrix (so far: its kernels).

pub(crate) mod kernel;
