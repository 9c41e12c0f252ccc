//! A fetch response of any bytes: the list ends, each batch is a slice of it, and a tail that was cut off is told of.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use muslin::codec::record_batch::BatchList;
use muslin_fuzz::{mend, read};

fuzz_target!(|data: &[u8]| {
    let Some((how, bytes)) = data.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if how & 1 == 0 {
        mend(&mut bytes);
    }
    // A cut anywhere, as the broker's limit makes it.
    bytes.truncate(bytes.len() * usize::from(how >> 1 | 1) / 127);
    let bytes = Bytes::from(bytes);
    let range = bytes.as_ptr_range();
    let mut list = BatchList::new(bytes.clone());
    let mut seen = 0;
    let mut failed = false;
    for batch in list.by_ref() {
        match batch {
            Ok(batch) => {
                assert!(range.contains(&batch.as_bytes().as_ptr()));
                seen += batch.as_bytes().len();
                let _ = read(&batch);
            }
            Err(e) => {
                failed = true;
                assert!(!e.message().is_empty() && e.message().len() < 1000);
            }
        }
        assert!(seen <= bytes.len());
    }
    assert!(list.next().is_none());
    match list.truncated() {
        Some(cut) => assert!(cut.available > 0 && cut.needed.is_none_or(|needed| needed > cut.available)),
        None => assert!(failed || seen == bytes.len()),
    }
});
