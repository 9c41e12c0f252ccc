//! Any records in any codec come back as they were written, with everything that stands around them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muslin::codec::record_batch::BatchList;
use muslin_fuzz::{Batch, build, read};

fuzz_target!(|batches: Vec<Batch>| {
    let mut stream = Vec::new();
    let mut written = Vec::new();
    for batch in &batches {
        let (options, contents) = (batch.options(), batch.contents(true));
        match build(options.clone(), &contents) {
            Ok(bytes) => {
                stream.extend_from_slice(&bytes);
                written.push((options, contents));
            }
            Err(e) => assert!(contents.is_empty(), "{}", e.report()),
        }
    }
    let mut list = BatchList::new(stream.into());
    for (options, contents) in written {
        let batch = list.next().unwrap().unwrap();
        assert_eq!(batch.compression(), options.compression);
        assert_eq!(batch.base_offset(), options.base_offset);
        assert_eq!(batch.leader_epoch(), options.leader_epoch);
        assert_eq!(batch.producer_id(), options.producer_id);
        assert_eq!(batch.producer_epoch(), options.producer_epoch);
        assert_eq!(batch.base_sequence(), options.base_sequence);
        assert_eq!(batch.is_transactional(), options.transactional);
        let read = read(&batch).unwrap();
        for (i, (offset, _)) in read.iter().enumerate() {
            assert_eq!(offset.get(), options.base_offset.get() + i as i64);
        }
        assert_eq!(read.into_iter().map(|(_, content)| content).collect::<Vec<_>>(), contents);
    }
    assert!(list.next().is_none() && list.truncated().is_none());
});
