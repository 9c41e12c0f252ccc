//! Topics by name and id.

/// All topics.
#[derive(Debug, Default)]
pub(super) struct Topics {}
