//! Checks an answer's structure before it is decoded.
//!
//! kafka-protocol's decoder reserves memory for as many elements as an array announces: a damaged or hostile length
//! of `0xffffffff` would end the process. So each answer is walked first, by a small table of its fields, and every
//! announced element must be there. After that a decoded answer takes at most some forty times its bytes (the worst are
//! unknown tagged fields: 2 bytes on the wire, an entry of a map in memory); record bytes are slices and cost nothing.

/// What stands at a field's place.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "embedded"), allow(dead_code, reason = "some shapes stand in requests alone"))]
pub(crate) enum Shape {
    /// So many bytes.
    Fixed(usize),
    /// A string, null or not.
    Text,
    /// Bytes, null or not.
    Bytes,
    /// An array of structs, null or not.
    Structs(&'static [Field]),
    /// An array of values of so many bytes, null or not.
    Values(usize),
    /// An array of strings, null or not.
    Texts,
    /// A struct.
    Struct(&'static [Field]),
    /// A struct behind a byte of 1, or another byte alone.
    Maybe(&'static [Field]),
    /// The known tagged fields of the struct that ends here; unknown ones are skipped. Without this, a struct has none.
    Tags(&'static [(u32, Field)]),
}

/// A field and the versions that have it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub(crate) from: i16,
    pub(crate) to: i16,
    pub(crate) shape: Shape,
}

/// A field of all versions from `from` on.
pub(crate) const fn since(from: i16, shape: Shape) -> Field {
    Field { from, to: i16::MAX, shape }
}

/// A field of all versions.
pub(crate) const fn always(shape: Shape) -> Field {
    since(0, shape)
}

/// Walks a struct in `bytes` and returns what follows it.
///
/// # Errors
/// What does not fit, and how many bytes were left there.
pub(crate) fn check<'a>(
    bytes: &'a [u8],
    version: i16,
    flexible: bool,
    fields: &[Field],
) -> Result<&'a [u8], String> {
    let mut walk = Walk { bytes, version, flexible };
    walk.fields(fields)?;
    Ok(walk.bytes)
}

struct Walk<'a> {
    bytes: &'a [u8],
    version: i16,
    flexible: bool,
}

impl<'a> Walk<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        match self.bytes.split_at_checked(n) {
            Some((taken, rest)) => {
                self.bytes = rest;
                Ok(taken)
            }
            None => Err(format!("{n} bytes announced, {} left", self.bytes.len())),
        }
    }

    fn varint(&mut self) -> Result<u32, String> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.take(1)?.first().copied().unwrap_or_default();
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("a length of more than five bytes".to_owned())
    }

    /// A length: `None` for null.
    fn length(&mut self, wide: bool) -> Result<Option<usize>, String> {
        if self.flexible {
            return Ok(self.varint()?.checked_sub(1).map(|n| n as usize));
        }
        let n = if wide {
            let raw = self.take(4)?;
            raw.try_into().map(i32::from_be_bytes).map_err(|_| "a short length".to_owned())?
        } else {
            let raw = self.take(2)?;
            raw.try_into().map(i16::from_be_bytes).map(i32::from).map_err(|_| "a short length".to_owned())?
        };
        match n {
            -1 => Ok(None),
            n => usize::try_from(n).map(Some).map_err(|_| format!("a negative length, {n}")),
        }
    }

    fn fields(&mut self, fields: &[Field]) -> Result<(), String> {
        let mut known: &[(u32, Field)] = &[];
        let version = self.version;
        for field in fields.iter().filter(|f| f.from <= version && version <= f.to) {
            match field.shape {
                Shape::Tags(tags) => known = tags,
                shape => self.shape(shape)?,
            }
        }
        if self.flexible { self.tags(known) } else { Ok(()) }
    }

    fn shape(&mut self, shape: Shape) -> Result<(), String> {
        match shape {
            Shape::Fixed(n) => self.take(n).map(drop),
            Shape::Text => self.length(false)?.map_or(Ok(()), |n| self.take(n).map(drop)),
            Shape::Bytes => self.length(true)?.map_or(Ok(()), |n| self.take(n).map(drop)),
            Shape::Values(size) => {
                self.length(true)?.map_or(Ok(()), |n| self.take(n.saturating_mul(size)).map(drop))
            }
            Shape::Structs(fields) => {
                for _ in 0..self.length(true)?.unwrap_or(0) {
                    // An element of no bytes would make the loop as long as the announced number.
                    let before = self.bytes.len();
                    self.fields(fields)?;
                    if self.bytes.len() == before {
                        return Err("an array of empty elements".to_owned());
                    }
                }
                Ok(())
            }
            Shape::Texts => {
                // Each string takes at least the byte or two of its length.
                for _ in 0..self.length(true)?.unwrap_or(0) {
                    self.shape(Shape::Text)?;
                }
                Ok(())
            }
            Shape::Struct(fields) => self.fields(fields),
            Shape::Maybe(fields) => match self.take(1)? {
                [1] => self.fields(fields),
                _ => Ok(()),
            },
            Shape::Tags(_) => Ok(()),
        }
    }

    fn tags(&mut self, known: &[(u32, Field)]) -> Result<(), String> {
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            let body = self.take(size)?;
            if let Some((_, field)) = known.iter().find(|(t, f)| *t == tag && f.from <= self.version) {
                // The decoder reads a known tag's value without regard to the announced size.
                let mut inner = Walk { bytes: body, version: self.version, flexible: self.flexible };
                inner.shape(field.shape)?;
                if !inner.bytes.is_empty() {
                    return Err(format!(
                        "tagged field {tag} of {size} bytes holds {} too many",
                        inner.bytes.len()
                    ));
                }
            }
        }
        Ok(())
    }
}
