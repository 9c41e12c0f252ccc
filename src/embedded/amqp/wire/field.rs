//! The domains that methods and properties are made of (section 4.2.5), read from a slice and written to a buffer.

use bytes::{BufMut, BytesMut};

/// The bytes are not what AMQP says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

/// Takes values from the front of a slice. Every method fails where too few bytes are left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Broken)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Broken)?;
        self.0 = rest;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, Broken> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, Broken> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, Broken> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Result<u64, Broken> {
        self.array().map(u64::from_be_bytes)
    }

    /// A short string: one byte of length.
    #[inline]
    pub(crate) fn short(&mut self) -> Result<&'a [u8], Broken> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// A long string or a table: four bytes of length.
    #[inline]
    pub(crate) fn long(&mut self) -> Result<&'a [u8], Broken> {
        let length = self.u32()?;
        self.take(usize::try_from(length).map_err(|_| Broken)?)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A value that stands in a method's arguments.
pub(crate) trait Field<'a>: Sized {
    fn read(from: &mut Reader<'a>) -> Result<Self, Broken>;
    fn write(&self, to: &mut BytesMut);
}

macro_rules! integer {
    ($($int:ident $put:ident),*) => {$(
        impl Field<'_> for $int {
            #[inline]
            fn read(from: &mut Reader<'_>) -> Result<Self, Broken> {
                from.$int()
            }
            #[inline]
            fn write(&self, to: &mut BytesMut) {
                to.$put(*self);
            }
        }
    )*};
}
integer!(u8 put_u8, u16 put_u16, u32 put_u32, u64 put_u64);

/// A short string: at most 255 bytes. RabbitMQ does not ask for UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Short<'a>(pub(crate) &'a [u8]);

impl<'a> Short<'a> {
    /// The text, with `U+FFFD` for what is not UTF-8.
    pub(crate) fn lossy(self) -> std::borrow::Cow<'a, str> {
        String::from_utf8_lossy(self.0)
    }
}

impl<'a> From<&'a str> for Short<'a> {
    fn from(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

impl<'a> Field<'a> for Short<'a> {
    #[inline]
    fn read(from: &mut Reader<'a>) -> Result<Self, Broken> {
        from.short().map(Self)
    }

    /// What is longer than 255 bytes is cut.
    #[inline]
    fn write(&self, to: &mut BytesMut) {
        let length = u8::try_from(self.0.len()).unwrap_or(u8::MAX);
        to.put_u8(length);
        to.put_slice(self.0.get(..usize::from(length)).unwrap_or_default());
    }
}

/// A long string: any bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Long<'a>(pub(crate) &'a [u8]);

/// A table as it stands on the wire, without its length: [`super::table::decode`] reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RawTable<'a>(pub(crate) &'a [u8]);

macro_rules! long {
    ($($name:ident),*) => {$(
        impl<'a> Field<'a> for $name<'a> {
            #[inline]
            fn read(from: &mut Reader<'a>) -> Result<Self, Broken> {
                from.long().map(Self)
            }

            fn write(&self, to: &mut BytesMut) {
                // No caller has 4 GiB: what is encoded came in a frame or was built from one.
                to.put_u32(u32::try_from(self.0.len()).unwrap_or(u32::MAX));
                to.put_slice(self.0);
            }
        }
    )*};
}
long!(Long, RawTable);

/// A method's bits, packed into one byte; the first one is bit 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags(pub(crate) u8);

impl Flags {
    #[inline]
    pub(crate) const fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

impl Field<'_> for Flags {
    #[inline]
    fn read(from: &mut Reader<'_>) -> Result<Self, Broken> {
        from.u8().map(Self)
    }
    #[inline]
    fn write(&self, to: &mut BytesMut) {
        to.put_u8(self.0);
    }
}
