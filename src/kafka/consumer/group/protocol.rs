//! stub
use bytes::{Buf, BufMut, Bytes, BytesMut};
use crate::kafka::offsets::Place;
use crate::{Result, Topic, Partition};
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Subscription { pub topics: Vec<Topic>, pub user_data: Option<Bytes>, pub owned: Vec<Place>, pub generation: Option<i32>, pub rack: Option<String> }
impl Subscription {
    pub(crate) fn encode(&self) -> Bytes { let mut b = BytesMut::new(); b.put_i16(1); b.put_i32(self.topics.len() as i32); for t in &self.topics { b.put_i16(t.as_str().len() as i16); b.put_slice(t.as_str().as_bytes()); } b.put_i32(-1); b.put_i32(self.owned.len() as i32); for (t, p) in &self.owned { b.put_i16(t.as_str().len() as i16); b.put_slice(t.as_str().as_bytes()); b.put_i32(1); b.put_i32(p.0); } b.freeze() }
    pub(crate) fn decode(mut b: Bytes) -> Result<Self> { let mut s = Self::default(); b.get_i16(); for _ in 0..b.get_i32() { let n = b.get_i16() as usize; let x = b.split_to(n); s.topics.push(Topic::new(std::str::from_utf8(&x).unwrap())?); } b.get_i32(); if b.has_remaining() { for _ in 0..b.get_i32() { let n = b.get_i16() as usize; let x = b.split_to(n); let t = Topic::new(std::str::from_utf8(&x).unwrap())?; for _ in 0..b.get_i32() { s.owned.push((t.clone(), Partition(b.get_i32()))); } } } Ok(s) }
}
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Assignment { pub partitions: Vec<Place>, pub user_data: Option<Bytes> }
impl Assignment {
    pub(crate) fn encode(&self) -> Bytes { let mut b = BytesMut::new(); b.put_i16(0); b.put_i32(self.partitions.len() as i32); for (t, p) in &self.partitions { b.put_i16(t.as_str().len() as i16); b.put_slice(t.as_str().as_bytes()); b.put_i32(1); b.put_i32(p.0); } b.put_i32(-1); b.freeze() }
    pub(crate) fn decode(mut b: Bytes) -> Result<Self> { let mut s = Self::default(); b.get_i16(); for _ in 0..b.get_i32() { let n = b.get_i16() as usize; let x = b.split_to(n); let t = Topic::new(std::str::from_utf8(&x).unwrap())?; for _ in 0..b.get_i32() { s.partitions.push((t.clone(), Partition(b.get_i32()))); } } Ok(s) }
}
