//! Policies for messages that cannot be given to a handler, shared by events and tasks.

use super::Class;
use super::handler::HandlerError;
use crate::codec::envelope::EnvelopeError;
use crate::delivery::Reason;

/// What becomes of a message that no handler can be given: it never blocks the ones behind it, and one line in the
/// log names its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// To the dead letters; without any, as [`super::WithoutDeadLetter`] says. The default.
    #[default]
    DeadLetter,
    /// Acknowledged without an effect.
    Skip,
    /// The run ends with an error that names it; it comes again.
    Stop,
}

impl Policy {
    fn class(self) -> Class {
        match self {
            Self::DeadLetter => Class::Reject,
            Self::Skip => Class::Ignore,
            Self::Stop => Class::Stop,
        }
    }
}

/// The policies of a consumer or a worker.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Policies {
    pub(crate) unknown_type: Policy,
    pub(crate) not_json: Policy,
    pub(crate) missing_field: Policy,
    pub(crate) bad_data: Policy,
}

impl Policies {
    /// For an envelope that cannot be read.
    pub(crate) fn unreadable(&self, error: &EnvelopeError) -> HandlerError {
        let (policy, reason, word) = match error {
            EnvelopeError::NotUtf8 { .. } | EnvelopeError::NotJson { .. } => {
                (self.not_json, Reason::NotJson, "not_json")
            }
            EnvelopeError::MissingField(_) => (self.missing_field, Reason::BadField, "missing_field"),
            EnvelopeError::WrongType(_) => (self.missing_field, Reason::BadField, "wrong_type"),
        };
        HandlerError::new(policy.class(), error).because(reason, word)
    }

    /// For a message without a body.
    pub(crate) fn empty(&self, what: &str) -> HandlerError {
        HandlerError::new(self.not_json.class(), format!("{what} has no value; expected a JSON object"))
            .because(Reason::NotJson, "not_json")
    }

    /// For a type that no handler is registered for.
    pub(crate) fn unknown(&self, kind: &str) -> HandlerError {
        HandlerError::new(self.unknown_type.class(), format!("no handler for type {kind:?}"))
            .because(Reason::UnknownType, "unknown_type")
    }

    /// For an id that is there and says nothing.
    #[cfg(feature = "kafka")]
    pub(crate) fn no_id(&self, field: &str) -> HandlerError {
        HandlerError::new(self.missing_field.class(), format!("field `{field}` is empty"))
            .because(Reason::BadField, "missing_field")
    }

    /// Classes a handler's error that says that `data` had another shape; any other stays as it is.
    pub(crate) fn class_data(&self, error: HandlerError) -> HandlerError {
        if error.word() == BAD_DATA { error.with_class(self.bad_data.class()) } else { error }
    }
}

/// The word for `data` of another shape than the handler takes.
const BAD_DATA: &str = "bad_data";

impl HandlerError {
    /// `data` has another shape than the handler takes; [`Policies::class_data`] gives it its class.
    pub(crate) fn bad_data(kind: &str, error: &serde_json::Error) -> Self {
        Self::reject(format!("data of type {kind:?}: {error}")).because(Reason::BadField, BAD_DATA)
    }
}
