//! privilege family.
