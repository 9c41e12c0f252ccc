//! What the broker's reply codes mean here (AMQP 0-9-1 section 1.2, "Constants", and RabbitMQ's additions).

use crate::{Error, ErrorKind};

/// Why the broker closed a channel or the connection: its code and its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: u16,
    pub(super) text: String,
}

impl Reply {
    /// The kind of the error that this reply stands for.
    pub(super) fn kind(&self) -> ErrorKind {
        let says = |word: &str| self.text.contains(word);
        match self.code {
            311 => ErrorKind::TooLarge,
            312 | 313 => ErrorKind::Rejected,
            320 => ErrorKind::Disconnected,
            402 => ErrorKind::Config,
            403 => ErrorKind::Denied,
            404 => ErrorKind::NotFound,
            405 => ErrorKind::Conflict,
            406 if says("larger than") => ErrorKind::TooLarge,
            406 if says("timed out") || says("timeout") => ErrorKind::Timeout,
            406 if says("unknown delivery tag") => ErrorKind::Internal,
            406 => ErrorKind::Conflict,
            501 | 502 => ErrorKind::Malformed,
            503..=505 => ErrorKind::Internal,
            506 => ErrorKind::Unavailable,
            530 if says("not found") => ErrorKind::NotFound,
            530 if says("limit") || says("is down") => ErrorKind::Unavailable,
            530 => ErrorKind::Denied,
            540 => ErrorKind::Unsupported,
            _ => ErrorKind::Broker,
        }
    }

    /// The error, with what was being done before the broker's words.
    pub(super) fn to_error(&self, doing: &str) -> Error {
        let kind = self.kind();
        let hint = match kind {
            ErrorKind::Conflict => {
                " (it exists otherwise than asked: use the same arguments, or join it as it is)"
            }
            ErrorKind::Denied => " (check user, password and the user's rights on the virtual host)",
            ErrorKind::NotFound => " (create it, or check its name)",
            _ => "",
        };
        Error::new(kind, format!("{doing}: RabbitMQ says {} {}{hint}", self.code, self.text))
    }

    /// Finds a reply in the debug text that `amqprs` makes of a refused connection.
    pub(super) fn find(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once("reply_code: ")?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let code = rest.get(..digits)?.parse().ok()?;
        let (_, rest) = rest.split_once("reply_text: ShortStr(")?;
        let (_, rest) = rest.split_once('"')?;
        let (words, _) = rest.split_once("\"), class_id")?;
        Some(Self { code, text: words.replace("\\\"", "\"").replace("\\'", "'") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_found_in_the_librarys_debug_text() {
        let text = "failed to open connection, reason: Close(MethodHeader { class_id: 10, method_id: 50 }, Close { \
                    reply_code: 530, reply_text: ShortStr(34, \"NOT_ALLOWED - vhost \\\"x\\\" not found\"), class_id: \
                    10, method_id: 40 })";
        let reply = Reply::find(text).unwrap();
        assert_eq!((reply.code, reply.text.as_str()), (530, "NOT_ALLOWED - vhost \"x\" not found"));
        assert_eq!(reply.kind(), ErrorKind::NotFound);
        assert_eq!(Reply::find("peer shutdown"), None);
    }

    #[test]
    fn one_code_can_mean_several_kinds() {
        let kind = |code, text: &str| Reply { code, text: text.to_owned() }.kind();
        assert_eq!(kind(406, "inequivalent arg 'durable'"), ErrorKind::Conflict);
        assert_eq!(kind(406, "message size 9 is larger than configured max size 8"), ErrorKind::TooLarge);
        assert_eq!(kind(530, "access to vhost '/' refused for user 'u'"), ErrorKind::Denied);
        assert_eq!(
            kind(530, "refused for user 'u': connection limit (1) is reached"),
            ErrorKind::Unavailable
        );
        assert_eq!(kind(320, "CONNECTION_FORCED"), ErrorKind::Disconnected);
    }
}
