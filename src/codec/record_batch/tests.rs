use super::*;
use crate::Timestamp;

#[test]
fn a_record_comes_back_as_it_was_pushed() {
    let mut b = BatchBuilder::new(BatchOptions::default());
    b.push(Timestamp(5), Some(b"k"), None, [("h", None), ("h", Some(&b""[..]))]).unwrap();
    b.push(Timestamp(4), None, Some(b""), []).unwrap();
    let size = b.size();
    let bytes = b.finish().unwrap();
    assert_eq!(bytes.len(), size);
    let view = BatchView::parse(bytes).unwrap();
    let records = view.records(0).unwrap();
    let all: Vec<_> = records.iter().map(Result::unwrap).collect();
    assert_eq!((all[0].key(), all[0].value()), (Some(&b"k"[..]), None));
    assert_eq!((all[1].key(), all[1].value()), (None, Some(&b""[..])));
    assert_eq!(all[1].timestamp(), Timestamp(4));
    assert_eq!(all[0].headers().count(), 2);
}
