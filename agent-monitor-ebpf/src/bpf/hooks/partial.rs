//! partial family.
