//! network family.
