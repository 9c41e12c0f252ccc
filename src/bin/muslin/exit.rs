//! How a command ends: its status, and the error that goes with it.

use muslin::{Error, ErrorKind};

/// A command's end that is no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All of it is done. Status 0.
    Done,
    /// Some of the work failed; the summary says how much. Status 1.
    SomeFailed,
    /// Nothing could be sent, for the reason that was printed. Status 3.
    Unreachable,
    /// A signal came, and what was in hand is finished or given back. Status 130.
    Interrupted,
}

impl Ended {
    pub(crate) const fn status(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::SomeFailed => 1,
            Self::Unreachable => 3,
            Self::Interrupted => 130,
        }
    }
}

/// A command's end by an error.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) status: u8,
}

/// What a command returns.
pub(crate) type Outcome = Result<Ended, Failure>;

impl Failure {
    /// The command was used wrongly. Status 2.
    pub(crate) fn usage(error: Error) -> Self {
        Self { error, status: 2 }
    }

    /// As [`Failure::usage`], from a text.
    pub(crate) fn wrong_use(text: impl Into<String>) -> Self {
        Self::usage(Error::new(ErrorKind::Config, text))
    }

    /// What is needed before the work begins could not be had. Status 3, or 2 where an argument or setting is wrong.
    pub(crate) fn setup(error: Error) -> Self {
        // Before the work begins nothing is too large but an argument.
        let status = if matches!(error.kind(), ErrorKind::Config | ErrorKind::TooLarge) { 2 } else { 3 };
        Self { error, status }
    }
}

impl From<Error> for Failure {
    /// An error that ends the work in its middle.
    fn from(error: Error) -> Self {
        let status = status_of(error.kind());
        Self { error, status }
    }
}

/// The status for an error of this kind in the middle of the work.
pub(crate) const fn status_of(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Config => 2,
        ErrorKind::Connect
        | ErrorKind::Disconnected
        | ErrorKind::Timeout
        | ErrorKind::Denied
        | ErrorKind::NotFound
        | ErrorKind::Conflict
        | ErrorKind::Unavailable => 3,
        // Everything else is work that failed; kinds to come are, too.
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_the_contract() {
        let all = [Ended::Done, Ended::SomeFailed, Ended::Unreachable, Ended::Interrupted];
        assert_eq!(all.map(Ended::status), [0, 1, 3, 130]);
        let error = |kind| Error::new(kind, "x");
        assert_eq!(Failure::wrong_use("x").status, 2);
        assert_eq!(Failure::setup(error(ErrorKind::Config)).status, 2);
        assert_eq!(Failure::setup(error(ErrorKind::Malformed)).status, 3);
        assert_eq!(Failure::from(error(ErrorKind::Denied)).status, 3);
        assert_eq!(Failure::from(error(ErrorKind::Handler)).status, 1);
    }
}
