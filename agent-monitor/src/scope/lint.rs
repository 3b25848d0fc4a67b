//! Rules that can never decide, or decide something surprising.
