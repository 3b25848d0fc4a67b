//! file family.
