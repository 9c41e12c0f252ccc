//! Bytes of AMQP 0-9-1, as a broker reads and writes them. Pure.
//!
//! | file | what |
//! |---|---|
//! | `frame` | the head of a frame, and where it ends (section 4.2.3) |
//! | `field` | the domains that methods are made of: integers, short and long strings, bits (section 4.2.5) |
//! | `method` | every method that a client may send and every one that the server sends, as plain structs |
//! | `properties` | a content header: the properties stay raw and are looked into where a queue needs to (section 4.2.6) |
//! | `table` | field tables to and from [`crate::amqp::Table`], of bounded depth |
//!
//! Nothing here copies a payload: what is decoded borrows from the frame. Nothing allocates by a length that was not
//! checked against the bytes that are there.

pub(crate) mod field;
pub(crate) mod frame;
pub(crate) mod method;
pub(crate) mod properties;
pub(crate) mod table;

pub(crate) use field::{Flags, Long, RawTable, Reader, Short};
pub(crate) use properties::Properties;
