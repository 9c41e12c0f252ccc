//! Who leads what, and when to ask again.
