//! Classic groups.
use kafka_protocol::ResponseError as Code;

use super::Asker;

/// A classic group's members.
#[derive(Debug, Default)]
pub(super) struct Classic {}

impl Classic {
    pub(super) fn check_commit(&self, asker: &Asker) -> Result<(), Code> {
        if asker.generation < 0 { Ok(()) } else { Err(Code::IllegalGeneration) }
    }
}
