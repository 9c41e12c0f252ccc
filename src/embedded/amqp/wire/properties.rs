//! A content header (section 4.2.6): class, size of the body, and the properties of a message.
//!
//! A broker passes properties on as they came. So they are kept raw, are walked once on arrival so that nobody meets
//! broken ones later, and are read again only where a queue or an exchange needs one of them.

use bytes::{BufMut, BytesMut};

use super::field::{Broken, Field, RawTable, Reader, Short};

/// A content header's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContentHeader<'a> {
    pub(crate) class: u16,
    /// Bytes of the body, as the sender claims.
    pub(crate) body_size: u64,
    /// The two flag bytes and the values: what [`Properties::parse`] reads.
    pub(crate) properties: &'a [u8],
}

impl<'a> ContentHeader<'a> {
    #[inline]
    pub(crate) fn parse(mut from: Reader<'a>) -> Result<Self, Broken> {
        let class = from.u16()?;
        // The weight, which must be zero; RabbitMQ does not look.
        from.u16()?;
        Ok(Self { class, body_size: from.u64()?, properties: from.0 })
    }

    /// Appends the payload.
    #[inline]
    pub(crate) fn write(&self, to: &mut BytesMut) {
        to.put_u16(self.class);
        to.put_u16(0);
        to.put_u64(self.body_size);
        to.put_slice(self.properties);
    }
}

macro_rules! properties {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $bit:literal,)*) => {
        /// The properties of a message, read from or written to their raw form.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub(crate) struct Properties<'a> {
            $($(#[$doc])* pub(crate) $name: Option<$type>,)*
        }

        impl<'a> Properties<'a> {
            /// Reads all of them. The two lowest flag bits are not looked at, as RabbitMQ does.
            pub(crate) fn parse(raw: &'a [u8]) -> Result<Self, Broken> {
                let mut from = Reader(raw);
                let flags = from.u16()?;
                let out = Self {
                    $($name: if flags & (1 << $bit) != 0 { Some(Field::read(&mut from)?) } else { None },)*
                };
                if from.is_empty() { Ok(out) } else { Err(Broken) }
            }

            /// Appends the raw form.
            pub(crate) fn write(&self, to: &mut BytesMut) {
                let mut flags = 0u16;
                $(if self.$name.is_some() {
                    flags |= 1 << $bit;
                })*
                to.put_u16(flags);
                $(if let Some(value) = &self.$name {
                    value.write(to);
                })*
            }
        }
    };
}

properties! {
    content_type: Short<'a> = 15,
    content_encoding: Short<'a> = 14,
    /// The headers, not decoded.
    headers: RawTable<'a> = 13,
    /// 1: may be lost in a restart; 2: persistent.
    delivery_mode: u8 = 12,
    priority: u8 = 11,
    correlation_id: Short<'a> = 10,
    reply_to: Short<'a> = 9,
    /// Milliseconds, as decimal digits.
    expiration: Short<'a> = 8,
    message_id: Short<'a> = 7,
    /// Seconds since 1970-01-01T00:00:00Z.
    timestamp: u64 = 6,
    /// The application's name for the kind of message (`type`).
    kind: Short<'a> = 5,
    user_id: Short<'a> = 4,
    app_id: Short<'a> = 3,
    cluster_id: Short<'a> = 2,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = Option<Vec<u8>>> {
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20))
    }

    proptest! {
        #[test]
        fn properties_survive_the_way_there_and_back(
            texts in proptest::collection::vec(text(), 11),
            delivery_mode in any::<Option<u8>>(),
            priority in any::<Option<u8>>(),
            timestamp in any::<Option<u64>>(),
            body_size in any::<u64>(),
        ) {
            let short = |n: usize| texts[n].as_deref().map(Short);
            let sent = Properties {
                content_type: short(0),
                content_encoding: short(1),
                headers: texts[2].as_deref().map(RawTable),
                delivery_mode,
                priority,
                correlation_id: short(3),
                reply_to: short(4),
                expiration: short(5),
                message_id: short(6),
                timestamp,
                kind: short(7),
                user_id: short(8),
                app_id: short(9),
                cluster_id: short(10),
            };
            let mut raw = BytesMut::new();
            sent.write(&mut raw);
            prop_assert_eq!(Properties::parse(&raw).unwrap(), sent);

            let header = ContentHeader { class: 60, body_size, properties: &raw };
            let mut payload = BytesMut::new();
            header.write(&mut payload);
            prop_assert_eq!(ContentHeader::parse(Reader(&payload)).unwrap(), header);
            for cut in 2..raw.len() {
                prop_assert!(Properties::parse(&raw[..cut]).is_err());
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Properties::parse(&bytes);
            let _ = ContentHeader::parse(Reader(&bytes));
        }
    }

    #[test]
    fn no_properties_are_two_zero_bytes() {
        assert_eq!(Properties::parse(&[0, 0]).unwrap(), Properties::default());
        let mut raw = BytesMut::new();
        Properties::default().write(&mut raw);
        assert_eq!(&raw[..], [0, 0]);
    }
}
